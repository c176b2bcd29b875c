"""Compute a moving average and its blur together, as one matrix per axis.

    Subsample_s ∘ Blur_m ∘ Box_k  =  A₁ ⊗ A₂ ⊗ …,   Aᵢ of ⌈D/s⌉ rows and N columns

Both are linear and separable, borders included. Their responses to the unit impulses of an axis are the columns of its
matrix, and the dense average is never computed. Matrix products make more multiply-adds than the two steps, but take a
fraction of their time on a CPU, if the axes are short.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .batches import layout, runs_now
from .convolution import own_type

LONGEST = 256  # of an axis


@dataclass(frozen=True, eq=False)
class Fused:
    """A separable linear map of (N, C, N₁, …), the same for every image and channel.

    Args:
        steps: the map by its definition.
        matrices: the matrix (nᵢ, Nᵢ) of each axis, in float64.
    """

    steps: Callable[[Tensor], Tensor]
    matrices: tuple[Tensor, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, N₁, …) → (N, C, n₁, …), in the type of ``x`` whatever autocast says."""
        out: Tensor = _Product.apply(x, self)
        return out

    def product(self, x: Tensor) -> Tensor:
        """Multiply; use the two steps if a value is not finite, which a product spreads along the axes."""
        out = multiply(x, self.matrices)
        return out if not runs_now(x) or _is_finite(out) else self.steps(x)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Return the gradient of an input for a gradient (N, C, n₁, …) of the output."""
        found = multiply(gradient, [matrix.T for matrix in self.matrices])
        if not runs_now(gradient) or _is_finite(found):
            return found
        with torch.enable_grad():
            x = torch.zeros_like(found).requires_grad_()
            out = self.steps(x)
        return torch.autograd.grad(out, x, gradient, create_graph=torch.is_grad_enabled())[0]


def fuses(x: Tensor, axes: int) -> bool:
    """Whether matrices are faster than the two steps, and no mode listens for the function calls of these.

    In channels_last they are not faster (benchmarks/layers.py).
    """
    if not runs_now(x) or torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False
    plain = x.dim() == axes + 2 and x.is_floating_point() and layout(x) == torch.contiguous_format
    return plain and max(x.shape[2:]) <= LONGEST


def taps(kernel: Tensor) -> list[tuple[float, ...]] | None:
    """Return the filter of each axis, None if the kernel is learned or is not separable.

    >>> taps(torch.tensor([[0.25, 0.25], [0.25, 0.25]]))
    [(0.5, 0.5), (0.5, 0.5)]
    """
    axes = range(kernel.dim())
    wide = kernel.detach().double()
    found = [wide.sum([other for other in axes if other != axis]) if kernel.dim() > 1 else wide for axis in axes]
    found[1:] = [each / wide.sum() for each in found[1:]]  # the sum of 16-bit values may not be exactly 1
    product = functools.reduce(lambda left, right: left[..., None] * right, found)
    rounding = max(torch.finfo(kernel.dtype).eps, torch.finfo(torch.float32).eps)
    near = (product - wide).abs().max() <= 4 * rounding * wide.abs().max()
    return [tuple(each.tolist()) for each in found] if near and not kernel.requires_grad else None


def multiply(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply ``x`` (N, C, N₁, …) by a matrix (nᵢ, Nᵢ) along each axis; 16-bit types are summed in 32 bits."""
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    with own_type(values):
        for axis, matrix in enumerate(matrices, 2):
            before, after = values.shape[:axis], values.shape[axis + 1 :]
            own = matrix.to(values)
            if after:
                folded = values.reshape(math.prod(before), values.shape[axis], math.prod(after))
                values = (own @ folded).reshape(*before, len(own), *after)
            else:
                values = values @ own.T
    return values.to(x.dtype)


def _is_finite(x: Tensor) -> bool:
    return bool(x.sum(dtype=torch.promote_types(x.dtype, torch.float32)).isfinite())


class _Product(torch.autograd.Function):
    """Saves nothing for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fused: Fused) -> Tensor:
        ctx.fused = fused
        return fused.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.fused.adjoint(gradients[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        out: Tensor = ctx.fused.product(tangents[0])
        return out
