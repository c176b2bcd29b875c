"""Helpers to run a model: its dtype and device, its modes, and hooks that tell which module runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .errors import explaining


class DispatchMode(TorchDispatchMode):
    """A ``TorchDispatchMode`` with annotations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has none


def where(model: nn.Module, otherwise: Tensor | None = None) -> Tensor:
    """Return a tensor of the model's dtype and device: its first floating-point parameter, else buffer.

    Args:
        model: may hold no tensor at all.
        otherwise: returned for a model without a floating-point tensor; by default an empty one on the CPU.

    >>> torch.zeros(1).to(where(nn.Linear(1, 1).double())).dtype
    torch.float64
    """
    held = (tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
    found = next((tensor for tensor in held if tensor.is_floating_point()), otherwise)
    return torch.empty(0) if found is None else found


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy in the same modes; that of an FX graph would be in training mode.

    Raises:
        AliasfixError: a part of the model cannot be copied.
    """
    with explaining(f"{type(model).__name__} cannot be copied", "use inplace=True"):
        twin = copy.deepcopy(model)
    modes = {path: module.training for path, module in model.named_modules()}
    for path, module in twin.named_modules():
        module.training = modes[path]
    return twin


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back into its own mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.train(modes[0][1])  # a class may do more in train() than set flags
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode without gradients, and every module back into its own mode at the end.

    >>> net = nn.Sequential(nn.Dropout())
    >>> with evaluating(net):
    ...     net[0].training
    False
    >>> net[0].training
    True
    """
    with modes_kept(model), torch.no_grad():
        model.eval()
        yield


@contextmanager
def watching(
    modules: Iterable[tuple[str, nn.Module]], see: Callable[[str, nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Call ``see(name, module, args, output)`` after every call of the modules.

    >>> net = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> with watching(net.named_children(), lambda name, module, args, output: print(name, output.shape)):
    ...     _ = net(torch.ones(1, 2, 2))
    0 torch.Size([1, 4])
    1 torch.Size([1, 4])
    """
    with ExitStack() as hooks:
        for name, module in modules:
            hooks.callback(module.register_forward_hook(partial(see, name)).remove)
        yield


@contextmanager
def call_stack(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Yield a list that holds, while the model runs, the modules that are running: path and module, outermost first.

    >>> net = nn.Sequential(nn.Identity())
    >>> with call_stack(net) as stack:
    ...     _ = net[0].register_forward_hook(lambda *_: print([path for path, _ in stack]), prepend=True)
    ...     _ = net(torch.ones(1))
    ['', '0']
    """
    stack: list[tuple[str, nn.Module]] = []

    def enter(path: str, module: nn.Module, args: Any) -> None:
        stack.append((path, module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(enter, path), prepend=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield stack
