"""Resample a periodic signal along one axis.

The frequencies 0 … K of N samples are kept, and evaluated anew at the positions start + step · i. Both are linear: the
map is a matrix (M, N), of rank 2 K + 1. Along a short axis a product with that matrix is faster than Fourier
transforms, and every compiler and exporter knows it. Along a longer axis the transforms are used.

Source: Michaeli et al., CVPR 2023. Where the M samples fill the period and K is as large as both sizes allow, it is
``scipy.signal.resample`` without the Nyquist frequency of even sizes.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .batches import layout
from .convolution import own_type

LONGEST = 512  # of an axis for which a matrix is used


@dataclass(frozen=True)
class Grid:
    """Where the samples of the result lie along an axis.

    Args:
        size: how many there are.
        start: the position of the first, in samples of the input.
        step: their distance, in samples of the input.
        highest: the highest frequency that is kept, in periods of the input's length.
    """

    size: int
    start: float
    step: float
    highest: int

    @classmethod
    def fill(cls, before: int, after: int) -> "Grid":
        """``after`` samples for ``before``, all over the period, with every frequency that both sizes have.

        >>> Grid.fill(8, 12)
        Grid(size=12, start=0.0, step=0.6666666666666666, highest=3)
        """
        return cls(after, 0.0, before / after, (min(before, after) - 1) // 2)


def resample(x: Tensor, grids: Sequence[Grid | None]) -> Tensor:
    """Resample the last axes of ``x`` (N, C, N₁, …), each by its grid; None leaves an axis as it is.

    16-bit types are computed in 32 bits, whatever autocast says. The memory format stays.

    >>> wave = torch.tensor([[[1.0, 2.0, 1.0, 0.0]]])
    >>> resample(wave, [Grid.fill(4, 8)]).round(decimals=2)
    tensor([[[1.0000, 1.7100, 2.0000, 1.7100, 1.0000, 0.2900, 0.0000, 0.2900]]])
    """
    memory = layout(x)
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    order = sorted(range(len(grids)), key=lambda axis: _growth(x, grids, axis))
    for axis in order:
        grid = grids[axis]
        if grid is not None:
            values = _along(values, axis - len(grids), grid)
    return values.to(x.dtype).contiguous(memory_format=memory)


def _growth(x: Tensor, grids: Sequence[Grid | None], axis: int) -> float:
    """How many times longer an axis becomes: what shrinks goes first."""
    grid = grids[axis]
    return 1.0 if grid is None else grid.size / x.shape[axis - len(grids)]


def _along(x: Tensor, axis: int, grid: Grid) -> Tensor:
    """Resample one axis, counted from the end."""
    length = x.shape[axis]
    if max(length, grid.size) > LONGEST and not x.is_complex():
        return _transformed(x, axis, grid)
    return multiply(x, axis, matrix(length, grid, x))


def multiply(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply an axis, counted from the end, by a matrix (M, N), whatever autocast says."""
    before, after = x.shape[:axis], x.shape[axis:][1:]
    with own_type(x):
        if not after:
            return x @ matrix.T
        out = matrix @ x.reshape(*before[:2], math.prod(before[2:]), x.shape[axis], math.prod(after))
    return out.reshape(*before, len(matrix), *after)


def matrix(length: int, grid: Grid, like: Tensor) -> Tensor:
    """Return the matrix (M, N) of a grid, in the type and on the device of ``like``."""
    if not is_plain():
        return _matrix(length, grid, like.dtype, like.device)
    with torch.inference_mode(False), torch.no_grad():
        return _kept(length, grid, like.dtype, like.device)


def _matrix(length: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu" if device.type == "mps" else device}
    frequencies = torch.arange(grid.highest + 1, **exact) * (2 * math.pi / length)
    read = torch.arange(length, **exact)[:, None] * frequencies
    made = (torch.arange(grid.size, **exact) * grid.step + grid.start)[:, None] * frequencies
    once = torch.where(frequencies == 0, 0.5, 1.0)
    found = (made.cos() * once) @ read.cos().T + made.sin() @ read.sin().T
    return (found * (2 / length)).to(device, dtype)


def is_plain() -> bool:
    """Whether what is computed here has a value that may be kept: nothing traces, compiles or transforms it."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return not torch._C._are_functorch_transforms_active()


@functools.lru_cache(maxsize=256)
def _kept(length: int, grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _matrix(length, grid, dtype, device)


def _transformed(x: Tensor, axis: int, grid: Grid) -> Tensor:
    """Resample by Fourier transforms: directly if the samples fill the period, else by a low-pass and an index."""
    length, kept = x.shape[axis], grid.highest + 1
    fills = math.isclose(grid.size * grid.step, length)
    after = grid.size if fills else length
    spectrum: Tensor = torch.fft.rfft(x, dim=axis).narrow(axis, 0, kept)
    if grid.start:
        turn = torch.arange(kept, dtype=torch.float64, device=x.device) * (2 * math.pi * grid.start / length)
        turned = torch.polar(torch.ones_like(turn), turn).to(spectrum.dtype)
        spectrum = spectrum * turned.reshape(-1, *[1] * (-axis - 1))
    out: Tensor = torch.fft.irfft(spectrum, n=after, dim=axis) * (after / length)
    if fills:
        return out
    step = round(grid.step)
    places = torch.arange(grid.size, device=x.device) * step % length
    return out.index_select(axis, places)
