"""A few images at a time.

What an operation makes on its way (a padded copy, a dense map) then stays in a cache, and the memory that held it for
some images holds it for the next.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_PART = 2**20  # values that are taken at a time


def runs_now(x: Tensor) -> bool:
    """Whether what is done to ``x`` is computed at once, on a CPU and without a gradient; not recorded or compiled."""
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return type(x) is Tensor and x.device.type == "cpu" and not recorded and not needs_gradient(x)


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows ``x``."""
    return torch.is_grad_enabled() and x.requires_grad


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` of a function that treats every entry of the first axis alike.

    >>> in_parts(lambda part: part + 1, torch.zeros(2))
    tensor([1., 1.])
    """
    if not runs_now(x) or x.numel() <= _PART or len(x) == 1:
        return function(x)
    return torch.cat([function(part) for part in torch.split(x, max(1, _PART // x[0].numel()))])
