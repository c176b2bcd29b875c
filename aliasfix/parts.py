"""A few images at a time.

What an operation makes on its way (a padded copy, a dense map) then stays in a cache, and the memory that held it for
some images holds it for the next. In training nothing of it is kept: it is made again for the gradient, part by part.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PART = 2**20  # values that are taken at a time


def runs_now(x: Tensor) -> bool:
    """Whether what is done to ``x`` is computed at once and on a CPU: not recorded, compiled or transformed."""
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    plain = type(x) is Tensor and x.device.type == "cpu" and not recorded
    return plain and not torch._C._are_functorch_transforms_active()


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows ``x``."""
    return torch.is_grad_enabled() and x.requires_grad


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` of a function that treats every entry of the first axis alike, and depends on nothing trained.

    >>> in_parts(lambda part: part + 1, torch.zeros(2))
    tensor([1., 1.])
    """
    if not runs_now(x) or x.numel() <= _PART or (len(x) == 1 and not needs_gradient(x)):
        return function(x)
    return _Parts.apply(x, function) if needs_gradient(x) else _joined(function, x)


def _split(x: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    """``x`` in as many parts as ``like`` is taken in."""
    return torch.split(x, max(1, _PART // like[0].numel()))


def _joined(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in _split(x, x)])


class _Parts(torch.autograd.Function):
    """The gradient from the input alone: each part is evaluated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return _joined(function, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        found: list[Tensor] = []
        with torch.enable_grad():
            for part, gradient in zip(_split(x, x), _split(gradients[0], x), strict=True):
                own = part.detach().requires_grad_()
                found += torch.autograd.grad(ctx.function(own), own, gradient, create_graph=twice)
        return torch.cat(found), None
