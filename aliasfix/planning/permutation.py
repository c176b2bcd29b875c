"""Read the order of axes from a permutation, as any of torch's functions writes it."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from ..tracing.operation import of


def permutation(node: fx.Node) -> list[int] | None:
    """Return which axis of the argument, from 0, each axis of the result is; None if ``node`` permutes nothing."""
    read = _READ.get(of(node).name.strip("_"))  # without the mark of an operation in place
    if read is None:
        return None
    dims = len(of(node.all_input_nodes[0]).sizes)
    return read(list(range(dims)), [number % dims for number in _numbers([*node.args[1:], *node.kwargs.values()])])


def _numbers(values: Sequence[Any]) -> list[int]:
    """The numbers among arguments, of a tuple or one by one."""
    return [int(part) for value in values for part in (value if isinstance(value, tuple | list) else (value,))]


def _permute(order: list[int], given: list[int]) -> list[int]:
    return given


def _swap(order: list[int], given: list[int]) -> list[int]:
    a, b = given
    order[a], order[b] = order[b], order[a]
    return order


def _move(order: list[int], given: list[int]) -> list[int]:
    half = len(given) // 2
    pairs = dict(zip(given[half:], given[:half], strict=True))
    rest = iter(axis for axis in order if axis not in given[:half])
    return [pairs[place] if place in pairs else next(rest) for place in range(len(order))]


_READ: dict[str, Callable[[list[int], list[int]], list[int]]] = {
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _swap),
    **dict.fromkeys(("movedim", "moveaxis"), _move),
}
