"""Slicing an image along both axes.

    x[…, a::s, b::s]  =  Subsample_s   →   Subsample_s ∘ Blur_m

Keeping every s-th row and column subsamples without an operation before it, as in the patch merging of Swin (four
slices of one map) and in some shortcuts. The blur goes before the slice, at full resolution, so that slices at
different offsets share one blurred map. A slice along a single axis splits a table (rotary embeddings), and does not
sample.

Shapes: unchanged; the axes sliced are the spatial ones, wherever they are.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3.1; Liu et al., "Swin
Transformer", ICCV 2021, section 3.1, for the patch merging.
"""

from typing import Any

import torch
from torch import nn

from aliasfix.planning.rule import Case, Rule, Site
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class SpatialSlice(Rule):
    """``x[…]`` with a step along two axes or more."""

    signatures = {"__getitem__": ("input", "index")}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a slice with steps along two axes of a tensor that depends on the input."""
        shape = of(call.arguments["input"]).shape
        if not call.variable or shape is None or not isinstance(call.arguments["index"], tuple):
            return None
        steps = _steps(call.arguments["index"], len(shape))
        if len(steps) < 2 or any(step < 2 for step in steps.values()):
            return None
        axes = tuple(sorted(axis - len(shape) for axis in steps))
        stride = tuple(steps[axis + len(shape)] for axis in axes)
        if of(call.arguments["input"]).name == "blur_pool":
            return Site(stride, reason="aliasfix has blurred its input already.", axes=axes)
        return Site(stride, stride, before=True, axes=axes)

    cases = (
        Case("shortcut", lambda: _Slice()),
        Case("four_of_one_map", lambda: _PatchMerging(), (2, 8, 10, 4), multiple=2),
    )


def _steps(index: tuple[Any, ...], dims: int) -> dict[int, int]:
    """Return the steps above 1 by axis; empty if the index has other parts than slices and integers."""
    given = [part for part in index if part is not None]
    if any(not isinstance(part, slice | int) and part is not Ellipsis for part in given):
        return {}
    position = 0
    steps: dict[int, int] = {}
    for part in given:
        if part is Ellipsis:
            position += dims - (len(given) - 1)
            continue
        if isinstance(part, slice) and isinstance(part.step, int) and part.step > 1:
            steps[position] = part.step
        position += 1
    return steps


class _Slice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A shortcut without parameters."""
        return torch.mul(self.conv(x)[:, :, ::2, ::2], 2)


class _PatchMerging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.reduction = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Four slices of an NHWC map."""
        x = self.norm(x)
        parts = [x[..., a::2, b::2, :] for b in (0, 1) for a in (0, 1)]
        return torch.as_tensor(self.reduction(torch.cat(parts, -1)))
