"""Compute a few images at a time.

The intermediate tensors of an operation (a padded copy, a dense map) then fit into a cache, and their memory is used
again for the next images. In training they are not saved, but recomputed for the gradient, part by part.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

_HAS_FLAG = hasattr(torch.compiler, "_is_exporting_flag")  # else only an export sets the flag of compiling
_IS_OLD = torch.__version__ < "2.8"

PART = 2**20  # values of one part
_here = threading.local()


@contextlib.contextmanager
def whole_batches() -> Iterator[None]:
    """Take batches whole in this thread, for whoever listens to the calls: one call is then one of all images."""
    before = getattr(_here, "whole", False)
    _here.whole = True
    try:
        yield
    finally:
        _here.whole = before


def runs_now(x: Tensor) -> bool:
    """Whether operations on ``x`` run eagerly on a CPU: they are not traced, compiled or transformed."""
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if type(x) is not Tensor or x.device.type != "cpu" or recorded:
        return False
    return not (torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(x))


def is_compiled(x: Tensor) -> bool:
    """Whether operations on ``x`` are compiled for a CPU."""
    return torch.compiler.is_compiling() and not is_exporting() and x.device.type == "cpu"


def is_exporting() -> bool:
    """Whether ``torch.export`` is tracing.

    ``torch.compiler.is_exporting()`` says so to dynamo in every case before torch 2.14, and does not exist in 2.6.
    Before 2.8 the flags are not set when dynamo traces for an export, but its settings are those of an export.
    """
    flag = torch.compiler._is_exporting_flag if _HAS_FLAG else torch.compiler._is_compiling_flag
    return flag or (_IS_OLD and torch._dynamo.config.allow_rnn)


def materialize(x: Tensor) -> Tensor:
    """Have a compiler write ``x``, which must not be a view, to memory once.

    Inductor inlines cheap operations into every use: a maximum of four values, nine times into a blur of nine taps.
    """
    return x.as_strided(x.shape, x.stride()) if is_compiled(x) and not needs_gradient(x) else x


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows ``x``."""
    return torch.is_grad_enabled() and x.requires_grad


def layout(x: Tensor) -> torch.memory_format:
    """Return the memory format of ``x`` (N, C, N₁, …): channels_last or contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    return last[x.dim()] if x.dim() in last and x.stride(1) == 1 else torch.contiguous_format


def arrange(gradient: Tensor, memory: torch.memory_format) -> Tensor:
    """Return ``gradient`` in a memory format; a vmapped gradient, which has none, stays as it is."""
    return gradient.contiguous(memory_format=memory) if runs_now(gradient) else gradient


class Linear(Protocol):
    """A linear map with an adjoint."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map of ``x``."""

    def adjoint(self, gradient: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the gradient of an input of that shape."""


def in_parts(function: Callable[[Tensor], Tensor], linear: Linear, x: Tensor) -> Tensor:
    """Return ``linear(function(x))``, a few entries of the first axis at a time.

    Args:
        function: acts on each entry separately and has no parameters; it is recomputed for the gradient.
        linear: acts on each entry separately and has no parameters; its gradient is its adjoint.
        x: (N, …).
    """
    if not runs_now(x) or x.numel() <= PART or (len(x) == 1 and not needs_gradient(x)):
        return linear(function(x))
    if getattr(_here, "whole", False):
        return linear(function(x))
    if needs_gradient(x):
        out: Tensor = _Parts.apply(x, function, linear)
        return out
    return map_parts(lambda part: linear(function(part)), x)


def map_parts(function: Callable[[Tensor], Tensor], x: Tensor, values: int | None = None) -> Tensor:
    """Return ``function(x)``, a few entries of the first axis at a time; an entry counts as ``values``."""
    values = math.prod(x.shape[1:]) if values is None else values
    if len(x) * values <= PART or len(x) == 1:
        return function(x)
    return torch.cat([function(part) for part in _split(x, values)])


def _split(x: Tensor, values: int) -> tuple[Tensor, ...]:
    return torch.split(x, max(1, PART // values))


class _Parts(torch.autograd.Function):
    """Saves the input alone for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], linear: Linear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.linear = function, linear
        return map_parts(lambda part: linear(function(part)), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        twice, values = torch.is_grad_enabled(), math.prod(x.shape[1:])
        found: list[Tensor] = []
        for part, gradient in zip(_split(x, values), _split(gradients[0], values), strict=True):
            own = part.detach().requires_grad_()
            with torch.enable_grad():
                met = ctx.function(own)
            gradient = ctx.linear.adjoint(arrange(gradient, layout(met)), met.shape)
            found += torch.autograd.grad(met, own, gradient, create_graph=twice)
        return torch.cat(found), None, None
