"""Adaptive pooling to more than one sample.

    AdaptivePool   stays as it is

If the sizes do not divide, the windows differ in width and distance from one output sample to the next. There is then
no stride, and no single filter fits. Pooling to one sample (global pooling) does not sample.

Shapes: unchanged. Weights: none.
"""

from torch import nn

from aliasfix.planning.rule import Case, Rule, Site, spatial_axes
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class AdaptivePool(Rule):
    """``adaptive_avg_pool1d/2d/3d`` and ``adaptive_max_pool1d/2d/3d``, as modules or functions."""

    signatures = {
        f"adaptive_{kind}_pool{n}d{suffix}": ("input", "output_size", "return_indices")
        for kind in ("avg", "max")
        for n in (1, 2, 3)
        for suffix in (("", "_with_indices") if kind == "max" else ("",))
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """A pool to a smaller map of more than one sample."""
        axes = spatial_axes(call.name)
        old = of(call.arguments["input"]).sizes[-axes:]
        wanted = call.arguments["output_size"]
        wanted = (wanted,) * axes if isinstance(wanted, int) else wanted
        new = [o if n is None else int(n) for o, n in zip(old, wanted, strict=True)]
        stride = tuple(max(1, -(-o // n)) for o, n in zip(old, new, strict=True))
        if max(new) == 1 or max(stride) == 1:
            return None
        return Site(stride, reason="Its windows differ from sample to sample, so that no one filter fits all.")

    cases = (
        Case("average", lambda: nn.AdaptiveAvgPool2d(5), kept="windows"),
        Case("maximum", lambda: nn.AdaptiveMaxPool2d((4, 3)), kept="windows"),
    )
