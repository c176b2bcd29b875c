"""Slicing a map along its spatial axes.

    x[…, a::s, b::s]  =  Subsample_s   →   Subsample_s ∘ Blur_m

Keeping every s-th row and column is subsampling without any operation before it, as in the patch merging of Swin
(four slices of one map) and in some shortcuts. The blur goes before the slice, at the full resolution, so that
slices at different offsets share one blurred map. Where slices of one map read it at all offsets, nothing is dropped
(patch merging, Focus, wavelets), and ``gather="keep"`` keeps them as they are.

A slice along a single axis is one of two in a row, or of a map of one axis, and is blurred along this axis. It may
as well split a table (rotary embeddings) or interleaved channels, which is no sampling: it is a site only where the
axis is known to be spatial by where the tensor comes from.

Shapes: unchanged; the axes sliced are the spatial ones, wherever they are.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3.1; Liu et al., "Swin
Transformer", ICCV 2021, section 3.1, for the patch merging.
"""

import itertools
from typing import Any

import torch
from torch import fx, nn

from aliasfix.planning.low_pass import BLURS, is_blurred
from aliasfix.planning.provenance import is_spatial
from aliasfix.planning.rule import Case, Rule, Site
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class SpatialSlice(Rule):
    """``x[…]`` with a step along spatial axes."""

    signatures = {"__getitem__": ("input", "index")}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """A slice of something that depends on the input, with steps along two axes, or along one that is spatial."""
        source = call.arguments["input"]
        shape = of(source).shape
        if not call.variable or shape is None:
            return None
        steps = _steps(call.arguments["index"], len(shape))
        axes = tuple(sorted(axis - len(shape) for axis in steps))
        if not axes or (len(axes) == 1 and not is_spatial(trace, source, axes[0])):
            return None
        stride = tuple(steps[axis + len(shape)].step for axis in axes)
        reason = None
        if of(source).name in BLURS:
            reason = "aliasfix has blurred its input already."
        elif is_blurred(trace, source, stride):
            reason = "Its input is blurred already, by a convolution with a fixed low-pass kernel."
        return Site(
            stride, stride, reason, before=True, axes=axes, whole=_reads_all(source, steps), smooth=reason is not None
        )

    cases = (
        Case("shortcut", lambda: _Slice()),
        Case("in_two_steps", lambda: _InTurn("rows", "columns")),
        Case("rows", lambda: _InTurn("rows")),
        Case("in_1d", lambda: _Thinned(), (2, 4, 33)),
        Case("haar", lambda: _Haar(), multiple=2),
        Case("four_of_one_map", lambda: _PatchMerging(), (2, 8, 10, 4), multiple=2),
    )


def _steps(index: Any, dims: int) -> dict[int, slice]:
    """The slices with a step above 1, by axis; nothing where the index has more than slices and integers."""
    given = [part for part in (index if isinstance(index, tuple) else (index,)) if part is not None]
    if any(not isinstance(part, slice | int) and part is not Ellipsis for part in given):
        return {}
    position = 0
    steps: dict[int, slice] = {}
    for part in given:
        if part is Ellipsis:
            position += dims - (len(given) - 1)
            continue
        if isinstance(part, slice) and isinstance(part.step, int) and part.step > 1:
            steps[position] = part
        position += 1
    return steps


def _reads_all(source: fx.Node, steps: dict[int, slice]) -> bool:
    """Whether slices of one map with the same steps start at all offsets, and each goes on to the end."""
    sizes, read = of(source).sizes, set()
    for user in source.users:
        if of(user).name == "__getitem__" and user.args[0] is source:
            other = _steps(user.args[1], len(sizes))
            if {axis: part.step for axis, part in other.items()} == {axis: part.step for axis, part in steps.items()}:
                read.add(tuple(_offset(part, sizes[axis]) for axis, part in other.items()))
    return read == set(itertools.product(*(range(part.step) for part in steps.values())))


def _offset(part: slice, size: int) -> int | None:
    """Where a slice starts; None where it leaves out more than the other samples of its steps."""
    taken = range(size)[part]
    return taken.start if taken and taken.start < part.step and taken[-1] + part.step >= size else None


class _Slice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A shortcut without parameters."""
        return torch.mul(self.conv(x)[:, :, ::2, ::2], 2)


class _InTurn(nn.Module):
    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.conv, self.kinds = nn.Conv2d(4, 4, 3, padding=1), kinds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One axis after the other."""
        x = self.conv(x)
        for kind in self.kinds:
            x = x[:, :, ::2, :] if kind == "rows" else x[:, :, :, ::2]
        return x


class _Thinned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A recording at a fourth of its rate."""
        return torch.relu(self.conv(x))[..., ::4]


class _Haar(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sums and differences of neighbours, along one axis after the other."""
        low, high = x[:, :, ::2] + x[:, :, 1::2], x[:, :, ::2] - x[:, :, 1::2]
        bands = [band[..., ::2] + sign * band[..., 1::2] for band in (low, high) for sign in (1, -1)]
        return torch.cat(bands, 1) / 2


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
