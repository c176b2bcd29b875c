"""Sampling at given positions.

    x[i], x(grid), strides in memory   stay as they are

``index_select`` with an index of every s-th sample, ``grid_sample`` to a smaller size and ``as_strided`` with a step
keep some samples and drop others, but which is said by a tensor or by numbers about memory. The reason names a form
that is converted.

Shapes: unchanged. Weights: none.

Source: Jaderberg et al., "Spatial Transformer Networks", NeurIPS 2015, for the grid.
"""

import math

import torch
from torch import fx
from torch.nn import functional as F

from aliasfix.planning.low_pass import fixed_value
from aliasfix.planning.provenance import is_spatial
from aliasfix.planning.rule import Case, Convolved, Rule, Site
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class GivenPositions(Rule):
    """``index_select``, ``grid_sample`` and ``as_strided``, where they drop samples regularly."""

    signatures = {
        "index_select": ("input", "dim", "index"),
        "grid_sample": ("input", "grid"),
        "as_strided": ("input", "size", "stride"),
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """A call that keeps fewer samples of a map than there are."""
        source = call.arguments.get("input")
        if not isinstance(source, fx.Node) or not of(source).variable or of(source).shape is None:
            return None
        found = {"index_select": _selected, "grid_sample": _warped, "as_strided": _strided}[call.name](call, trace)
        return None if found is None else Site(found[0], reason=found[1])

    cases = (
        Case("index_select", lambda: Convolved(_selected_columns), kept="slice"),
        Case("smaller_grid", lambda: Convolved(_zoomed), kept="grid"),
        Case("as_strided", lambda: Convolved(_every_other), kept="slice"),
    )


Found = tuple[tuple[int, ...], str] | None


def _selected(call: Operation, trace: Trace) -> Found:
    """An index along a spatial axis, the same in every pass, of samples two apart or more."""
    source, dim = call.arguments["input"], call.arguments["dim"]
    dims = len(of(source).sizes)
    if not is_spatial(trace, source, dim % dims - dims):
        return None
    index = fixed_value(trace, call.arguments["index"])
    if index is None or index.device.type == "meta" or index.numel() < 2:
        return None
    step = int(index.diff().min())
    reason = f"Its index drops samples: write it as a slice with the step {step}, which is converted."
    return ((step,), reason) if step > 1 else None


def _warped(call: Operation, trace: Trace) -> Found:
    """A grid of fewer samples than the map has along some axis, and of more along none."""
    old, new = of(call.arguments["input"]).sizes[2:], call.sizes[2:]
    if old == new or any(n > o for o, n in zip(old, new, strict=True)) or 0 in new:
        return None
    stride = tuple(-(-o // n) for o, n in zip(old, new, strict=True))
    return stride, "Its grid decides what it samples: sample at the full size, and pool the result, which is converted."


def _strided(call: Operation, trace: Trace) -> Found:
    """Steps in memory that are multiples of those of the map."""
    source, given = of(call.arguments["input"]).sizes, call.arguments["stride"]
    if not any(is_spatial(trace, call.arguments["input"], -axis) for axis in range(1, len(source) + 1)):
        return None
    steps = [math.prod(source[axis + 1 :]) for axis in range(len(source))]
    apart = [max((step for step in steps if each % step == 0), default=1) for each in given]
    taken = zip(call.sizes, given, apart, strict=True)
    stride = tuple(each // step for n, each, step in taken if n > 1 and each > step)
    reason = "It steps through memory, whatever lies there: write it as a slice, which is converted, or as unfold."
    return (stride, reason) if stride else None


def _selected_columns(x: torch.Tensor) -> torch.Tensor:
    return x.index_select(3, torch.arange(0, x.shape[3], 2, device=x.device))


def _zoomed(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    grid = F.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), [batch, channels, height // 2, width // 2], False)
    return F.grid_sample(x, grid, align_corners=False)


def _every_other(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    size = (batch, channels, height // 2, width // 2)
    return x.as_strided(size, (channels * height * width, height * width, 2 * width, 2))
