"""Blur of an earlier conversion.

    Subsample_s ∘ Blur_m   stays as it is

The other rules insert it. Converting it again would blur twice.
"""

from torch import nn

from aliasfix.layers.blur import BlurPool as BlurPoolLayer
from aliasfix.layers.ideal import IdealPool
from aliasfix.planning.rule import Case, Rule, Site
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class BlurPool(Rule):
    """``blur_pool`` and ``ideal_pool`` of `aliasfix.layers`."""

    signatures = {
        "blur_pool": ("x", "kernel", "stride", "padding", "start", "size", "taps"),
        "ideal_pool": ("x", "rate", "stride", "wraps", "start", "size"),
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a blur that subsamples, and keep it."""
        stride = tuple(call.arguments["stride"])
        if max(stride) == 1:
            return None
        kernel = tuple(of(call.arguments["kernel"]).sizes) if "kernel" in call.arguments else stride
        return Site(stride, kernel, "It is a blur that aliasfix inserted.")

    cases = (
        Case("layer", lambda: nn.Sequential(BlurPoolLayer("tri3", (2, 2))), kept="aliasfix"),
        Case("ideal", lambda: nn.Sequential(IdealPool((2, 2))), kept="aliasfix"),
    )
