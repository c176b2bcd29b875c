"""Shifts of a batch of maps, and the sets of shifts the papers use.

A shift `(dh, dw)` moves the content down by `dh` and right by `dw` pixels; either may be negative or
fractional.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.cropping import cut

Shift: TypeAlias = tuple[float, float]


def circular(maps: Tensor, dh: float, dw: float) -> Tensor:
    """Shift maps circularly: what leaves on one side enters on the other.

    Whole pixels are rolled exactly. Fractions turn the phase of the discrete Fourier transform: sinc
    interpolation, exact for a band-limited map. The Nyquist bin of an even axis is scaled by cos(πd), the
    choice that keeps the map real.

    Args:
        maps: (..., H, W), floating point.
        dh: Pixels down.
        dw: Pixels to the right.

    Returns:
        (..., H, W), in the units of `maps`.

    Source: Zhang 2019 (ICML), Sec. 3.1 for whole pixels; Michaeli et al. 2023 (CVPR) for fractions.

    >>> circular(torch.tensor([[1., 2., 3., 4.]]), 0, 1)
    tensor([[4., 1., 2., 3.]])
    >>> circular(torch.tensor([[1., 0., -1., 0.]]), 0, 0.5).mul(2**0.5).round()  # half a pixel of a cosine
    tensor([[ 1.,  1., -1., -1.]])
    """
    if maps.ndim == 1:
        signal: Tensor = circular(maps[None], 0, dw)[0]
        return signal
    if dh == round(dh) and dw == round(dw):
        return maps.roll((round(dh), round(dw)), (-2, -1))
    height, width = maps.shape[-2:]
    phase = _phase(height, dh, maps)[:, None] * _phase(width, dw, maps)[: width // 2 + 1]
    shifted: Tensor = torch.fft.irfft2(torch.fft.rfft2(maps) * phase, s=(height, width))
    return shifted


def _phase(size: int, d: float, like: Tensor) -> Tensor:
    angle = -2 * math.pi * d * torch.fft.fftfreq(size, device=like.device, dtype=like.dtype)
    phase = torch.polar(torch.ones_like(angle), angle)
    if size % 2 == 0:
        phase[size // 2] = math.cos(math.pi * d)
    return phase


def crop(images: Tensor, dh: float, dw: float, size: int, axes: int = 2) -> Tensor:
    """Shift by moving a crop window over a larger image, as a camera would: new content enters at the border.

    The content moves by `(dh, dw)`, so the window moves by the opposite; `(0, 0)` is the centre crop.
    Fractions are interpolated as in `circular`, on the whole image before it is cropped.

    Args:
        images: (..., H, W) with H and W at least `size` plus twice the shift.
        dh: Pixels down.
        dw: Pixels to the right.
        size: Side of the window, in pixels.
        axes: 2, or 1 to crop signals (..., T) along the last axis alone.

    Returns:
        (..., size, size), of signals (..., size).

    Raises:
        AliasfixError: The window would leave the image.

    Source: Zhang 2019 (ICML), Sec. 4.2 (crops); Michaeli et al. 2023 (CVPR), crop-shift.

    >>> crop(torch.arange(16.).reshape(4, 4), 0, 1, 2)
    tensor([[4., 5.],
            [8., 9.]])
    """
    sides, shift = images.shape[-axes:], (dh, dw)[-axes:]
    starts = [(side - size) // 2 for side in sides]
    if not all(d <= start <= side - size + d for side, start, d in zip(sides, starts, shift, strict=True)):
        raise AliasfixError(
            f"a crop of {size} shifted by ({dh:g}, {dw:g}) leaves the {'x'.join(map(str, sides))} image: "
            f"give larger images, a smaller size or smaller shifts"
        )
    if any(d % 1 for d in shift):
        images = circular(images, dh % 1 if axes == 2 else 0, dw % 1)
    corners = [start - math.floor(d) for start, d in zip(starts, shift, strict=True)]
    return cut(images, [(corner, corner + size) for corner in corners])


def grid(reach: float, step: float = 1) -> list[Shift]:
    """All shifts within ±`reach` pixels on both axes, `step` apart, in reading order.

    `step=1` is the integer grid, `0.5` the half-pixel grid, anything smaller a fractional grid.

    Raises:
        AliasfixError: `reach` is negative or `step` is not positive.

    Source: Michaeli et al. 2023 (CVPR), integer, half-pixel and fractional grids.

    >>> grid(1)[:4], len(grid(1)), len(grid(1, step=0.5))
    ([(-1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, -1.0)], 9, 25)
    """
    if reach < 0 or step <= 0:
        raise AliasfixError(f"a grid needs reach >= 0 and step > 0; got reach={reach}, step={step}")
    steps = math.floor(reach / step + 1e-9)  # 0.3 / 0.1 is just below 3
    axis = [float(k * step) for k in range(-steps, steps + 1)]
    return [(dh, dw) for dh in axis for dw in axis]


def every(height: int, width: int) -> list[Shift]:
    """Every whole circular shift of a map, in reading order: the axes of Zhang 2019 (ICML), figure 5.

    >>> every(2, 2)
    [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
    """
    return [(float(dh), float(dw)) for dh in range(height) for dw in range(width)]


def diagonal(count: int) -> list[Shift]:
    """The shifts `(d, d)` for d = 0 … `count` − 1: the horizontal axis of Zhang 2019 (ICML), figure 1.

    >>> diagonal(3)
    [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
    """
    return [(float(d), float(d)) for d in range(count)]


def heat_map(shifts: Sequence[Shift], values: Tensor) -> Tensor:
    """Lay out one value per shift as a map: rows are dh, columns dw, both ascending.

    Args:
        shifts: N shifts that fill a rectangle, in any order.
        values: (N,), or (N, ...).

    Returns:
        (rows, columns, ...); `.diagonal()` of it is the value along dh = dw for a square grid.

    Raises:
        AliasfixError: The shifts do not fill a rectangle.

    >>> heat_map(every(2, 2), torch.tensor([1., 2., 3., 4.]))
    tensor([[1., 2.],
            [3., 4.]])
    """
    rows, columns = sorted({dh for dh, _ in shifts}), sorted({dw for _, dw in shifts})
    where = {shift: n for n, shift in enumerate(shifts)}
    if not len(where) == len(shifts) == len(rows) * len(columns):
        raise AliasfixError(f"{len(shifts)} shifts over {len(rows)} rows and {len(columns)} columns do not fill a map")
    order = [where[dh, dw] for dh in rows for dw in columns]
    return values[order].reshape(len(rows), len(columns), *values.shape[1:])
