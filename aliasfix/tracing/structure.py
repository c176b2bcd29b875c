"""Copy the modules of a model, and share its tensors."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def structure(model: nn.Module) -> nn.Module:
    """Return a copy of every module that shares the tensors of the model.

    A trace sets modes, hooks, attributes and caches on the copy, so that other threads can use the model meanwhile. A
    model that cannot be copied is returned itself.

    >>> model = nn.Linear(2, 3)
    >>> twin = structure(model)
    >>> twin is model, twin.weight is model.weight
    (False, True)
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    try:
        with _Sharing():
            return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception:  # a part of the model may raise anything when it is copied
        return model


class _Sharing(TorchFunctionMode):
    """Makes the copy of a tensor the tensor itself."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            return args[0]
        return func(*args, **(kwargs or {}))
