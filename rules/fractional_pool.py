"""Fractional max pooling.

    FractionalMaxPool   stays as it is

Its windows are random, so the samples lie on no lattice.

Shapes: unchanged. Weights: none.

Source: Graham, "Fractional Max-Pooling", 2014.
"""

from torch import nn

from aliasfix.planning.rule import Case, Rule, Site, per_axis, spatial_axes
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace


class FractionalPool(Rule):
    """``fractional_max_pool2d/3d``, as modules or functions."""

    signatures = {
        f"fractional_max_pool{n}d{suffix}": ("input", "kernel_size", "output_size", "output_ratio")
        for n in (2, 3)
        for suffix in ("", "_with_indices")
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find every call, and keep it."""
        axes = spatial_axes(call.name)
        kernel = per_axis(call.arguments["kernel_size"], axes)
        return Site(kernel, kernel, "Its windows are random, and the samples lie on no lattice.")

    cases = (Case("module", lambda: nn.FractionalMaxPool2d(2, output_ratio=0.5), kept="random"),)
