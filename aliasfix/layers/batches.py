"""A few images at a time.

What an operation makes on its way (a padded copy, a dense map) then stays in a cache, and the memory that held it for
some images holds it for the next. In training nothing of it is kept: it is made again for the gradient, part by part.
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

PART = 2**20  # values that are taken at a time
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
    """Whether what is done to ``x`` is computed at once and on a CPU: not recorded, compiled or transformed."""
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if type(x) is not Tensor or x.device.type != "cpu" or recorded:
        return False
    return not (torch._C._are_functorch_transforms_active() or torch._C._functorch.is_legacy_batchedtensor(x))


def is_compiled(x: Tensor) -> bool:
    """Whether a compiler makes loops for a CPU of what is done to ``x``."""
    return torch.compiler.is_compiling() and not is_exporting() and x.device.type == "cpu"


def is_exporting() -> bool:
    """Whether ``torch.export`` records what is computed.

    ``torch.compiler.is_exporting()`` says so to dynamo in every case before torch 2.14, and does not exist in 2.6.
    Before 2.8 the flags are not set when dynamo traces for an export, but its settings are those of an export.
    """
    flag = torch.compiler._is_exporting_flag if _HAS_FLAG else torch.compiler._is_compiling_flag
    return flag or (_IS_OLD and torch._dynamo.config.allow_rnn)


def written(x: Tensor) -> Tensor:
    """``x``, which must not be a view: a compiler writes it once, and does not compute it again for each of its users.

    Inductor inlines what is cheap to compute: a maximum of four, nine times over into a blur of nine taps.
    """
    return x.as_strided(x.shape, x.stride()) if is_compiled(x) and not needs_gradient(x) else x


def needs_gradient(x: Tensor) -> bool:
    """Whether autograd follows ``x``."""
    return torch.is_grad_enabled() and x.requires_grad


def layout(x: Tensor) -> torch.memory_format:
    """Whether the channels of ``x`` (N, C, N₁, …) are last or its samples, in memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    return last[x.dim()] if x.dim() in last and x.stride(1) == 1 else torch.contiguous_format


def arranged(gradient: Tensor, memory: torch.memory_format) -> Tensor:
    """``gradient`` in a layout, but for a batch of gradients, which cannot be asked for its own."""
    return gradient.contiguous(memory_format=memory) if runs_now(gradient) else gradient


class Linear(Protocol):
    """A linear map that says what a gradient of its output is to an input."""

    def __call__(self, x: Tensor) -> Tensor:
        """What it makes of ``x``."""

    def adjoint(self, gradient: Tensor, shape: Sequence[int]) -> Tensor:
        """The gradient of an input of a shape."""


def in_parts(function: Callable[[Tensor], Tensor], linear: Linear, x: Tensor) -> Tensor:
    """``linear(function(x))``, which treats every entry of the first axis alike and depends on nothing trained.

    Args:
        function: evaluated again for the gradient.
        linear: not evaluated again.
        x: (N, …).
    """
    if not runs_now(x) or x.numel() <= PART or (len(x) == 1 and not needs_gradient(x)):
        return linear(function(x))
    if getattr(_here, "whole", False):
        return linear(function(x))
    if needs_gradient(x):
        out: Tensor = _Parts.apply(x, function, linear)
        return out
    return joined(lambda part: linear(function(part)), x)


def joined(function: Callable[[Tensor], Tensor], x: Tensor, values: int | None = None) -> Tensor:
    """``function(x)``, a few entries of the first axis at a time; an entry stands for so many ``values``."""
    values = math.prod(x.shape[1:]) if values is None else values
    if len(x) * values <= PART or len(x) == 1:
        return function(x)
    return torch.cat([function(part) for part in _split(x, values)])


def _split(x: Tensor, values: int) -> tuple[Tensor, ...]:
    return torch.split(x, max(1, PART // values))


class _Parts(torch.autograd.Function):
    """The gradient from the input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], linear: Linear) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.linear = function, linear
        return joined(lambda part: linear(function(part)), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        twice, values = torch.is_grad_enabled(), math.prod(x.shape[1:])
        found: list[Tensor] = []
        for part, gradient in zip(_split(x, values), _split(gradients[0], values), strict=True):
            own = part.detach().requires_grad_()
            with torch.enable_grad():
                met = ctx.function(own)
            gradient = ctx.linear.adjoint(arranged(gradient, layout(met)), met.shape)
            found += torch.autograd.grad(met, own, gradient, create_graph=twice)
        return torch.cat(found), None, None
