"""Max pooling at stride 1.

The maximum over a box is computed along one axis after the other, and the maximum over k samples by ⌈log₂ k⌉ maxima of
two maps. torch's max pooling compares the samples of a window one by one, without vector instructions on a CPU.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import needs_gradient, runs_now
from .padding import pad


def dense_max(
    x: Tensor, kernel: Sequence[int], borders: Sequence[tuple[int, int]], dilation: Sequence[int] | None = None
) -> Tensor:
    """Max pooling at stride 1 of a map that is padded by (before, after) samples of −∞ on its last axes.

    Shape:
        (*, N₁, …) → (*, N₁ + before + after - dilation · (kernel - 1), …)

    >>> dense_max(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), [3], [(1, 1)])
    tensor([[3., 3., 3., 2.]])
    """
    steps = _steps(kernel, dilation or [1] * len(kernel))
    if needs_gradient(x):
        out: Tensor = _Maxima.apply(x, borders, steps)
        return out
    for found in _maxima(x, borders, steps):
        x = found
    return x


def _steps(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (axis, distance) of the pairs whose maxima are taken, in order."""
    steps = []
    for axis in reversed(range(len(kernel))):  # last axis first: of equal values the first in memory is kept
        covered = 1
        while covered < kernel[axis]:
            step = min(covered, kernel[axis] - covered)
            steps.append((axis - len(kernel), step * dilation[axis]))
            covered += step
    return steps


def _maxima(x: Tensor, borders: Sequence[tuple[int, int]], steps: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """Yield the padded map, and the map after each step."""
    if any(map(any, borders)):
        x = F.pad(x, [n for border in reversed(borders) for n in border], value=-torch.inf)
    yield x
    for dim, distance in steps:
        x = torch.maximum(*_pair(x, dim, distance))
        yield x


def _pair(x: Tensor, dim: int, distance: int) -> tuple[Tensor, Tensor]:
    """Return the samples that have another one at that distance, and the other ones."""
    size = x.shape[dim] - distance
    return x.narrow(dim, 0, size), x.narrow(dim, distance, size)


class _Maxima(torch.autograd.Function):
    """Passes the gradient to the first of equal maxima in a window, as torch's max pooling does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, borders: Sequence[tuple[int, int]], steps: Sequence[tuple[int, int]]) -> Tensor:
        ctx.borders, ctx.steps = borders, steps
        *maps, last = _maxima(x, borders, steps)
        ctx.save_for_backward(*maps)
        ctx.save_for_forward(*maps)
        return last if steps else last.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient, maps = gradients[0], ctx.saved_tensors
        finite = runs_now(gradient) and bool(gradient.sum().isfinite()) and not (maps and bool(maps[0].sum().isnan()))
        for x, (dim, distance) in zip(reversed(maps), reversed(ctx.steps), strict=True):
            if finite:  # a product with a mask is faster
                first, second = _pair(x.detach(), dim, distance)
                share = torch.gt(second, first, out=torch.empty_like(second)) * gradient
                rest = gradient - share
            else:
                of_second = _of_second(x, dim, distance)
                share, rest = torch.where(of_second, gradient, 0), torch.where(of_second, 0, gradient)
            gradient = F.pad(rest, [*[0, 0] * (-1 - dim), 0, distance])
            _pair(gradient, dim, distance)[1].add_(share)
        return pad(gradient, [(-before, -after) for before, after in ctx.borders], "zero"), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        tangent = pad(tangents[0], ctx.borders, "zero")
        for x, (dim, distance) in zip(ctx.saved_tensors, ctx.steps, strict=True):
            first, second = _pair(tangent, dim, distance)
            tangent = torch.where(_of_second(x, dim, distance), second, first)
        return tangent


def _of_second(x: Tensor, dim: int, distance: int) -> Tensor:
    """Return where the later of two samples is the maximum: where it is larger or NaN."""
    first, second = _pair(x.detach(), dim, distance)
    return (second > first).logical_or_(second.isnan())
