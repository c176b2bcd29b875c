"""Unfolding into windows, and folding back.

    Unfold_{k,s}   stays as it is

It lays out whole windows for what follows; whether that samples is decided there, not here: a reduction of each window
(median pooling) does. Folding adds windows up again, and what it enlarges is as smooth as they are.

Shapes: unchanged. Weights: none.
"""

import torch
from torch import fx, nn
from torch.nn import functional as F

from aliasfix.planning.provenance import is_spatial
from aliasfix.planning.rule import Case, Convolved, Rule, Site, per_axis
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

_WHOLE = "It lays out whole patches, of which nothing is dropped here."
_REDUCED = (
    "It lays out windows for what follows: where that reduces each of them, unfold at step 1, reduce, and slice with "
    "the step, which is converted."
)
_ADDED = "It adds up windows that overlap or lie side by side: blur behind it where their edges show."


class Unfold(Rule):
    """``unfold`` and ``fold`` of an image, as module or function, and ``Tensor.unfold`` along a spatial axis."""

    signatures = {
        "unfold": ("input", "kernel_size", "dilation", "padding", "stride"),
        "fold": ("input", "output_size", "kernel_size", "dilation", "padding", "stride"),
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Windows at a stride above 1."""
        if call.node.target is torch.Tensor.unfold:
            return _along_one_axis(call, trace)
        stride = per_axis(call.arguments.get("stride", 1), 2)
        kernel = per_axis(call.arguments["kernel_size"], 2)
        if max(stride) == 1 or not call.variable:
            return None
        folds = call.name == "fold"
        return Site(stride, kernel, _ADDED if folds else _WHOLE, enlarges=folds)

    cases = (
        Case("module", lambda: nn.Unfold(3, stride=2), kept="patches"),
        Case("function", lambda: Convolved(lambda x: F.unfold(x, 3, stride=2)), kept="patches"),
        Case("fold", lambda: Convolved(_there_and_back), kept="adds up"),
        Case("median_pool", lambda: Convolved(_medians), kept="reduce"),
    )


def _along_one_axis(call: Operation, trace: Trace) -> Site | None:
    """Windows of ``size`` samples, ``step`` apart, along one axis."""
    source, *given = call.node.args
    named = dict(zip(("dimension", "size", "step"), given, strict=False)) | dict(call.node.kwargs)
    axis, size, step = (int(str(named[name])) for name in ("dimension", "size", "step"))
    dims = len(call.sizes) - 1
    if step == 1 or not isinstance(source, fx.Node) or not is_spatial(trace, source, axis % dims - dims):
        return None
    return Site((step,), (size,), _REDUCED)


def _there_and_back(x: torch.Tensor) -> torch.Tensor:
    return F.fold(F.unfold(x, 2, stride=2), (x.shape[-2], x.shape[-1]), 2, stride=2)


def _medians(x: torch.Tensor) -> torch.Tensor:
    return x.unfold(2, 3, 2).unfold(3, 3, 2).flatten(-2).median(-1).values
