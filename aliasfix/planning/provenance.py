"""Which axes of a tensor are spatial, told from where it comes from.

The axes of an image are spatial, and those that a convolution or a pool slides along. An axis stays spatial through
what acts on each position by itself, through permutations, slices and those reshapes that leave it whole. Of other
operations nothing is known: the channels of a token, a head or a table are never taken for positions.
"""

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .permutation import permutation
from .tail import acts_by_position, kind

Axes = frozenset[int]  # counted from the end

_SLIDES = re.compile(r"(?:conv_?(?:transpose)?|(?:adaptive_)?(?:max_|avg_|lp_)pool|max_unpool)([123])d")
_RESIZES = {"interpolate", "upsample", "grid_sample", "pixel_shuffle", "pixel_unshuffle", "blur_pool", "ideal_pool"}
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "unsafe_view", "reshape_as", "view_as"}
_KEEPS = {
    *("cat", "concat", "concatenate", "group_norm", "instance_norm", "pad", "roll", "flip", "part", "chunk", "split"),
    *("linear", "where", "fill", "narrow", "index_select", "rot90", "flipud", "fliplr"),
}


def is_spatial(trace: Trace, node: fx.Node, axis: int) -> bool:
    """Whether an axis of a recorded tensor is one along which its samples lie.

    Args:
        trace: the pass.
        node: the tensor.
        axis: counted from the end.
    """
    if "spatial" not in node.meta:
        for each in trace.graph.nodes:
            each.meta["spatial"] = _spatial(each)
    known: Axes = node.meta["spatial"]
    return axis in known


def spatial(trace: Trace, node: fx.Node, longer_than: int) -> tuple[int, ...]:
    """The spatial axes of a recorded tensor, counted from the end, of those that are longer than a number."""
    sizes = of(node).sizes
    return tuple(a for a in range(-len(sizes), 0) if sizes[a] > longer_than and is_spatial(trace, node, a))


def channel_axis(trace: Trace, node: fx.Node) -> int:
    """The axis of the channels, counted from the end: the last one that is not spatial."""
    return max(axis for axis in range(-len(of(node).sizes), 0) if not is_spatial(trace, node, axis))


def _spatial(node: fx.Node) -> Axes:
    shape = of(node).shape
    if node.op == "placeholder" and shape is not None:
        return frozenset(range(-len(shape) + 2, 0))
    if node.op != "call_function" or not of(node).variable:
        return frozenset()
    sources = [parent for parent in node.all_input_nodes if parent.meta["spatial"]]
    op = kind(of(node).name)
    slides = _SLIDES.match(op)
    if slides is not None:
        return frozenset(range(-int(slides[1]), 0))
    if not sources:
        return frozenset()
    first: Axes = sources[0].meta["spatial"]
    if shape is None or op in _RESIZES:  # several results, each of which is a part
        return first
    order = permutation(node)
    if order is not None:
        return frozenset(order.index(axis % len(order)) - len(order) for axis in first)
    if op in _RESHAPES:
        return _reshaped(of(sources[0]).sizes, shape, first)
    if op == "getitem":
        return _indexed(node, sources[0])
    if op == "unfold" and len(shape) == len(of(sources[0]).shape or ()) + 1:
        return frozenset(axis - 1 for axis in first)  # behind all others is the axis of the window
    if op in _KEEPS or acts_by_position(op):
        kept = frozenset().union(*(_at_full_length(source, shape) for source in sources))
        return kept - {-1} if op == "linear" else kept
    return frozenset()


def _at_full_length(source: fx.Node, shape: Sequence[int]) -> Axes:
    """The spatial axes that are not spread over a larger one."""
    sizes: Sequence[int] = of(source).shape or shape
    axes: Axes = source.meta["spatial"]
    return frozenset(axis for axis in axes if -axis <= len(sizes) and (sizes[axis] > 1 or shape[axis] == 1))


def _reshaped(before: Sequence[int], after: Sequence[int], spatial: Axes) -> Axes:
    """The axes that a reshape leaves whole: as many values lie behind them before and after."""
    if 0 in before or math.prod(before) != math.prod(after):
        return frozenset()
    behind, left = ([1, *accumulate(reversed(shape), mul)] for shape in (before, after))
    same = {(behind[-axis - 1], before[axis]) for axis in spatial if before[axis] > 1}
    return frozenset(axis for axis in range(-len(after), 0) if (left[-axis - 1], after[axis]) in same)


def _indexed(node: fx.Node, source: fx.Node) -> Axes:
    """The axes behind an index of slices, whole numbers, None and an ellipsis."""
    index: Any = node.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    if any(not isinstance(part, slice | int) and part is not None and part is not Ellipsis for part in parts):
        return frozenset()
    dims = len(of(source).sizes)
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    rest = [slice(None)] * (dims - taken)
    place = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
    order: list[int | None] = []
    axis = 0
    for part in (*parts[:place], *rest, *parts[place + 1 :]):
        if part is None:
            order.append(None)
            continue
        if not isinstance(part, int):
            order.append(axis)
        axis += 1
    return frozenset(order.index(old) - len(order) for each in source.meta["spatial"] if (old := each % dims) in order)
