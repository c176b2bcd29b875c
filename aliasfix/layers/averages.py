"""A moving average and its blur at once, as one matrix for each axis.

    Subsample_s ∘ Blur_m ∘ Box_k  =  A₁ ⊗ A₂ ⊗ …,   Aᵢ of ⌈D/s⌉ rows and N columns

Both are linear and treat every axis by itself, borders included. So what the two steps make of the unit impulses of an
axis is all there is to know, and the dense average is never made. Products of matrices are what a CPU does fastest:
they make more multiply-adds than the two steps, in a fraction of their time, as long as an axis is not too long.
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
    """A linear map of (N, C, N₁, …) that treats every image, channel and axis by itself.

    Args:
        steps: the map as it is defined.
        matrices: (nᵢ, Nᵢ), one for each axis, in float64.
    """

    steps: Callable[[Tensor], Tensor]
    matrices: tuple[Tensor, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, N₁, …) → (N, C, n₁, …), in the type of ``x`` whatever autocast says."""
        out: Tensor = _Product.apply(x, self)
        return out

    def product(self, x: Tensor) -> Tensor:
        """A value that is not finite would be one everywhere along its axes: then the two steps are taken."""
        out = multiplied(x, self.matrices)
        return out if not runs_now(x) or _is_finite(out) else self.steps(x)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """What a gradient (N, C, n₁, …) of the output is to an input."""
        found = multiplied(gradient, [matrix.T for matrix in self.matrices])
        if not runs_now(gradient) or _is_finite(found):
            return found
        with torch.enable_grad():
            x = torch.zeros_like(found).requires_grad_()
            out = self.steps(x)
        return torch.autograd.grad(out, x, gradient, create_graph=torch.is_grad_enabled())[0]


def fuses(x: Tensor, axes: int) -> bool:
    """Whether matrices are cheaper than the two steps, and nobody listens for these.

    In channels_last they are not cheaper (benchmarks/layers.py).
    """
    if not runs_now(x) or torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False
    plain = x.dim() == axes + 2 and x.is_floating_point() and layout(x) == torch.contiguous_format
    return plain and max(x.shape[2:]) <= LONGEST


def taps(kernel: Tensor) -> list[tuple[float, ...]] | None:
    """The filter of each axis that a kernel is the product of, None where it is learned or no product.

    >>> taps(torch.tensor([[0.25, 0.25], [0.25, 0.25]]))
    [(0.5, 0.5), (0.5, 0.5)]
    """
    axes = range(kernel.dim())
    wide = kernel.detach().double()
    found = [wide.sum([other for other in axes if other != axis]) if kernel.dim() > 1 else wide for axis in axes]
    found[1:] = [each / wide.sum() for each in found[1:]]  # in 16 bits it may be a little more or less than 1
    product = functools.reduce(lambda left, right: left[..., None] * right, found)
    rounding = max(torch.finfo(kernel.dtype).eps, torch.finfo(torch.float32).eps)
    near = (product - wide).abs().max() <= 4 * rounding * wide.abs().max()
    return [tuple(each.tolist()) for each in found] if near and not kernel.requires_grad else None


def multiplied(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``x`` (N, C, N₁, …) times one matrix (nᵢ, Nᵢ) along each axis; 16 bits are summed in 32."""
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
    """Nothing is kept for the gradient."""

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
