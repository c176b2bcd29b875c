"""Blur and subsample a batch: pad, convolve every channel with a stride; and faster implementations.

Eagerly on a CPU, the convolution pads with zeros itself, which saves a copy, and the outputs at the borders are
computed again from the samples beside them. The gradient of a linear map needs neither the input nor the output. A
compiler makes one loop per axis, which pads and sums over the taps.
"""

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import PART, arrange, is_compiled, layout, map_parts, materialize, needs_gradient, runs_now
from .padding import fold, pad

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, eq=False)
class Blur:
    """A low-pass filter with a stride.

    Args:
        kernel: (m₁, …).
        stride: one number per spatial axis.
        borders: the padding (before, after) of each spatial axis.
        padding: the padding mode.
        taps: the filter of each spatial axis, None if the kernel may not be separable.
    """

    kernel: Tensor
    stride: tuple[int, ...]
    borders: tuple[tuple[int, int], ...]
    padding: str
    taps: Sequence[Sequence[float]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, N₁, …) → (N, C, n₁, …), in the type of ``x`` whatever autocast says."""
        with own_type(x):
            learned = x.is_complex() or self.kernel.requires_grad
            if not runs_now(x) or learned or not self._has_adjoint(x.shape):
                return self._compiled(x, self.taps) if self._fuses(x) and self.taps else self._plain(x)
            return _Linear.apply(x, self) if needs_gradient(x) else self._now(x)

    # -- by definition ---------------------------------------------------------------------------------------

    def _plain(self, x: Tensor) -> Tensor:
        return self._convolved(pad(x, self.borders, self.padding))

    def _convolved(self, x: Tensor, padding: Sequence[int] | int = 0) -> Tensor:
        conv, weight = _CONV[self.kernel.dim()], self._weight(x)
        return conv(x, weight, stride=self.stride, padding=padding, groups=x.shape[1])

    def _weight(self, x: Tensor) -> Tensor:
        every = self.kernel.to(x).expand(x.shape[1], 1, *self.kernel.shape)
        return every.contiguous() if runs_now(x) else every  # oneDNN takes no strides of 0

    # -- compiled --------------------------------------------------------------------------------------------

    def _fuses(self, x: Tensor) -> bool:
        """Whether it is compiled to loops. With a gradient, a convolution compiles faster."""
        return is_compiled(x) and not needs_gradient(x)

    def _compiled(self, x: Tensor, taps: Sequence[Sequence[float]]) -> Tensor:
        """Compute one loop per axis, its border included, which compiles and runs faster than one loop for all."""
        for axis, row in enumerate(taps):
            borders = [border if axis == other else (0, 0) for other, border in enumerate(self.borders)]
            x = weighted_sum(pad(x, borders, self.padding), row, self.stride[axis], axis - len(taps))
            x = materialize(x) if axis + 1 < len(taps) else x
        return x

    # -- eagerly on a CPU ------------------------------------------------------------------------------------

    def _now(self, x: Tensor) -> Tensor:
        if not (x.numel() > PART and self._is_direct(x)):
            return _in_parts(lambda part: self._plain(_wide(part)).to(part.dtype), x)
        before = [border[0] for border in self.borders]
        out = _in_parts(lambda part: self._convolved(_wide(part), before).to(part.dtype), x)
        for strip in self._strips(x.shape[2:]):
            out.narrow(strip.axis + 2, strip.first, strip.count).copy_(self._along(strip, x))
        return out

    def _is_direct(self, x: Tensor) -> bool:
        """Whether symmetric zero padding gives the same samples except at the borders."""
        axes = zip(x.shape[2:], self.kernel.shape, self.stride, self.borders, strict=True)
        return self.padding != "circular" and all(
            n >= taps + step and (n + 2 * before - taps) // step == (n + before + after - taps) // step
            for n, taps, step, (before, after) in axes
        )

    def _along(self, strip: "_Strip", x: Tensor) -> Tensor:
        """Compute the outputs of a strip."""
        borders = [strip.border if axis == strip.axis else border for axis, border in enumerate(self.borders)]
        dim = strip.axis + 2
        padded = pad(_wide(x.narrow(dim, strip.start, strip.reach)), borders, self.padding)
        padded = padded.narrow(dim, strip.skipped, padded.shape[dim] - strip.skipped)
        return self._convolved(padded).narrow(dim, 0, strip.count)

    def _strips(self, lengths: Sequence[int]) -> "list[_Strip]":
        """Return the strips of outputs that depend on a border, on each side of each axis."""
        found = []
        for axis, n in enumerate(lengths if self.padding != "zero" else ()):
            taps, step, (before, after) = self.kernel.shape[axis], self.stride[axis], self.borders[axis]
            count = (n + before + after - taps) // step + 1
            if (head := -(-before // step)) > 0:
                reach = max(step * (head - 1) - before + taps, before + 1)
                found.append(_Strip(axis, 0, head, 0, reach, (before, 0)))
            if (first := (n - taps + before) // step + 1) < count:
                beyond = step * (count - 1) - before + taps - n
                start = min(step * first - before, n - 1 - beyond)
                skipped = step * first - before - start
                found.append(_Strip(axis, first, count - first, start, n - start, (0, beyond), skipped))
        return found

    # -- the gradient ----------------------------------------------------------------------------------------

    def _has_adjoint(self, shape: Sequence[int]) -> bool:
        """Whether the adjoint is a transposed convolution and a fold: no border crops or exceeds the map."""
        return all(min(border) >= 0 and max(border) < n for n, border in zip(shape[2:], self.borders, strict=True))

    def adjoint(self, gradient: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the gradient of an input of that shape for a gradient (N, C, n₁, …) of the output."""
        with own_type(gradient):
            if not self._has_adjoint(shape):
                with torch.enable_grad():
                    x = gradient.new_zeros(shape).requires_grad_()
                    out = self._plain(x)
                return torch.autograd.grad(out, x, gradient, create_graph=torch.is_grad_enabled())[0]
            if torch.is_grad_enabled() or not runs_now(gradient):
                return self._back(gradient, shape[2:])
            return _in_parts(lambda part: self._back(part, shape[2:]), gradient, math.prod(shape[1:]))

    def _back(self, gradient: Tensor, lengths: Sequence[int]) -> Tensor:
        wide = _wide(gradient)
        padded = [n + sum(border) for n, border in zip(lengths, self.borders, strict=True)]
        sizes = zip(padded, gradient.shape[2:], self.kernel.shape, self.stride, strict=True)
        rest = [n - (out - 1) * step - taps for n, out, taps, step in sizes]
        transposed, weight = TRANSPOSED[self.kernel.dim()], self._weight(wide)
        spread = transposed(wide, weight, None, self.stride, 0, rest, wide.shape[1])
        return fold(spread, self.borders, self.padding).to(gradient.dtype)


@dataclass(frozen=True)
class _Strip:
    """``count`` outputs from ``first`` on, computed from ``reach`` inputs from ``start`` on and a border."""

    axis: int
    first: int
    count: int
    start: int
    reach: int
    border: tuple[int, int]
    skipped: int = 0  # inputs that only the border reads


class _Linear(torch.autograd.Function):
    """Saves nothing for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, blur: Blur) -> Tensor:
        ctx.blur, ctx.shape, ctx.layout = blur, x.shape, layout(x)
        return blur._now(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.blur.adjoint(arrange(gradients[0], ctx.layout), ctx.shape), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        blurred: Tensor = ctx.blur(tangents[0])
        return blurred


def _in_parts(function: Callable[[Tensor], Tensor], x: Tensor, values: int | None = None) -> Tensor:
    """Apply ``function`` to all of ``x`` if the kernel needs no copy of it, else in parts, whose copies fit a cache."""
    return function(x) if x.stride(1) == 1 and x.dtype.itemsize > 2 else map_parts(function, x, values)


def _wide(x: Tensor) -> Tensor:
    """Return 16-bit values in 32 bits: a depthwise convolution in 16 bits is many times slower on a CPU."""
    return x.float() if x.dtype.itemsize == 2 else x


def own_type(x: Tensor) -> AbstractContextManager[Any]:
    """Keep the dtype of ``x``: autocast would lower that of the blur, but not that of the blurred operation."""
    kind = x.device.type
    known = torch.compiler.is_dynamo_compiling() or torch.amp.is_autocast_available(kind)  # dynamo cannot trace it
    if not known or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


def weighted_sum(x: Tensor, taps: Sequence[float], step: int, dim: int) -> Tensor:
    """Convolve ``x`` with ``taps`` along one axis, and keep every ``step``-th sample.

    >>> weighted_sum(torch.tensor([0.0, 4.0, 8.0, 8.0, 0.0]), (0.25, 0.5, 0.25), 2, -1)
    tensor([4., 6.])
    """
    span = (x.shape[dim] - len(taps)) // step * step + 1
    behind: list[Any] = [slice(None)] * (-1 - dim)
    terms = [x[(..., slice(first, first + span, step), *behind)] * tap for first, tap in enumerate(taps)]
    return functools.reduce(operator.add, terms)
