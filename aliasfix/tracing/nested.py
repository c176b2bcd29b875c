"""Tensors nested in tuples, lists and dicts: the arguments and results of functions and models."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dicts, in order.

    >>> import torch
    >>> [t.item() for t in tensors({"a": torch.tensor(1), "b": [torch.tensor(2), None]})]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return nested tuples, lists and dicts with ``change`` applied to every tensor.

    >>> import torch
    >>> map_tensors((torch.tensor(1), [2, {"a": torch.tensor(3)}]), lambda tensor: tensor.item() + 1)
    (2, [2, {'a': 4}])
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [map_tensors(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [map_tensors(part, change) for part in value]
    if isinstance(value, dict):
        return {key: map_tensors(part, change) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(map_tensors(part, change) for part in (value.start, value.stop, value.step)))
    return value
