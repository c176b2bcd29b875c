"""A copy of a model that shares its tensors, to be run in the place of the model."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def structure(model: nn.Module) -> nn.Module:
    """A copy of every module with the model's own tensors.

    What a traced pass sets on modules (their mode, hooks, attributes, caches) it sets on the copy, so that another
    thread may go on using the model. A model that cannot be copied is returned itself.

    >>> model = nn.Linear(2, 3)
    >>> twin = structure(model)
    >>> twin is model, twin.weight is model.weight
    (False, True)
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    try:
        with _Sharing():
            return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception:  # whatever a part of the model raises when it is copied
        return model


class _Sharing(TorchFunctionMode):
    """Copies of tensors are the tensors themselves."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            return args[0]
        return func(*args, **(kwargs or {}))
