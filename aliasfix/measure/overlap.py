"""Two windows on one image, and the part of the image that both see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aliasfix.images.cropping import cut

Corner = Sequence[int]
"""Where a window begins on the image: rows and columns; of a signal, samples."""


def window(image: Tensor, corner: Corner, size: int) -> Tensor:
    """The window at a corner; what leaves it on one side comes in on the other where the image is no larger.

    Args:
        image: (..., H, W), of a signal (..., T): as many axes are cropped as the corner has.
        corner: its first row and column; may be negative where the image is as large as the window.
        size: its sides.

    >>> window(torch.arange(4.0), [1], 2), window(torch.arange(4.0), [1], 4)
    (tensor([1., 2.]), tensor([1., 2., 3., 0.]))
    """
    axes = range(-len(corner), 0)
    if all(image.shape[axis] == size for axis in axes):
        return image.roll([-start for start in corner], tuple(axes))
    return cut(image, [(start, start + size) for start in corner])


def drawn(
    sides: Sequence[int], size: int, passes: int, random: torch.Generator, reach: int = 32
) -> list[tuple[list[int], list[int]]]:
    """Corners of pairs of windows on an image: anywhere on it, or up to ``reach`` around where it is no larger.

    Args:
        sides: of the image: height and width, or length.
        size: of the windows.
        passes: pairs.
        random: draws them.
        reach: at most a quarter of the size.
    """
    high = [side - size + 1 if side > size else max(1, min(reach, size // 4)) for side in sides]
    ends = [torch.randint(n, (passes, 2), generator=random).tolist() for n in high]
    return [([axis[n][0] for axis in ends], [axis[n][1] for axis in ends]) for n in range(passes)]


def shared(one: Corner, other: Corner, sides: Sequence[int], size: int) -> list[tuple[int, int]]:
    """The part of the image that two windows see without what came in on the other side: ends for each axis.

    >>> shared([0, 3], [2, 1], (8, 8), 8), shared([0], [2], [16], 8)
    ([(2, 8), (3, 8)], [(2, 8)])
    """
    return [(max(a, b, 0), min(a + size, b + size, side)) for a, b, side in zip(one, other, sides, strict=True)]


def seen(maps: Tensor, corner: Corner, part: Sequence[tuple[int, int]]) -> Tensor:
    """The part of an image in the output (..., sides) of its window, which has the window's size."""
    return cut(maps, [(low - at, high - at) for at, (low, high) in zip(corner, part, strict=True)])


def enlarged(labels: Tensor, size: int, axes: int) -> Tensor:
    """A label map (..., sides) whose last axes are brought to a size, each label to the nearest positions.

    >>> enlarged(torch.tensor([[1, 2]]), 4, 1)
    tensor([[1, 1, 2, 2]])
    """
    lead = labels.shape[: labels.ndim - axes]
    flat = labels.reshape(1, -1, *labels.shape[labels.ndim - axes :]).float()
    return F.interpolate(flat, size=(size,) * axes, mode="nearest").reshape(*lead, *(size,) * axes).to(labels.dtype)
