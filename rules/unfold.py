"""Unfolding into patches.

    Unfold_{k,s}   stays as it is

It arranges whole patches, and keeps every sample. Whether the following operations sample is decided at these.

Shapes: unchanged. Weights: none.
"""

from torch import nn

from aliasfix.planning.rule import Case, Rule, Site, per_axis
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace


class Unfold(Rule):
    """``unfold`` of an image, as module or function."""

    signatures = {"unfold": ("input", "kernel_size", "dilation", "padding", "stride")}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find an ``im2col`` of stride above 1, and keep it (``Tensor.unfold`` is another function)."""
        if "kernel_size" not in call.arguments or len(call.arguments) < 5:
            return None
        stride = per_axis(call.arguments["stride"], 2)
        kernel = per_axis(call.arguments["kernel_size"], 2)
        if max(stride) == 1:
            return None
        return Site(stride, kernel, "It lays out whole patches, of which nothing is dropped here.")

    cases = (Case("module", lambda: nn.Unfold(3, stride=2), kept="patches"),)
