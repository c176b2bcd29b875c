"""What a model costs, and what a conversion adds to it, counted on the recorded pass: nothing has to run.

The form of a step says what is evaluated in its place: the operations up to the blur on the dense map, or as they were
with a blur before them. A blur of m taps makes m multiply-adds a sample, reads one map and writes one. What a device
does at once or in parts, in less time or memory, is counted as the steps it stands for.
"""

import math
from collections.abc import Collection, Sequence
from fractions import Fraction

from torch import fx

from .. import filters
from ..recipe import Recipe
from ..tracing.operation import of
from ..tracing.trace import Trace
from .cost import Cost, Price
from .forms import Call
from .rule import per_axis


def of_trace(trace: Trace) -> Price:
    """The price of everything that was recorded."""
    return sum((of_node(node) for node in trace.graph.nodes), Price())


def of_node(node: fx.Node, denser: Fraction = Fraction(1), dense: Collection[fx.Node] = ()) -> Price:
    """The price of one operation, on a map of so many times the samples; of what it reads, those in ``dense`` are, too.

    A view, and what only reads a size, cost nothing; an operation in place makes no new map.
    """
    if node.op != "call_function" or not of(node).moves:
        return Price()
    read = sum(_bytes(parent) * (denser if parent in dense else 1) for parent in node.all_input_nodes)
    written = _bytes(node) * denser
    return Price(int(of(node).multiply_adds * denser), int(written) if of(node).makes else 0, int(read + written))


def _bytes(node: fx.Node) -> int:
    return int(of(node).bytes)


def of_blur(node: fx.Node, recipe: Recipe, rates: Sequence[int], read: Fraction, kept: Fraction) -> Price:
    """The price of a blur of a map that is ``read`` times the one ``node`` returns, giving one ``kept`` times it."""
    taps = math.prod(len(filters.taps(recipe.filter, rate)) for rate in rates)
    written = int(_bytes(node) * kept)
    values = int(math.prod(of(node).sizes) * kept)
    return Price(values * taps, written, int(_bytes(node) * read) + written)


def of_step(call: Call, recipe: Recipe) -> Cost:
    """The price of a call with the tail that is evaluated densely with it, as it was and as it is planned."""
    nodes = call.tail or (call.node,)
    before = sum((of_node(node) for node in nodes), Price())
    if call.reason is not None:
        return Cost(of_node(call.node), of_node(call.node))
    rates = [rate // left for rate, left in zip(call.site.stride, call.left or (1,) * 9, strict=False)]
    one = Fraction(1)
    if call.form in ("dense", "fused", "split") and not call.site.enlarges:
        out = _result(call.node)
        denser = _density(call, out)
        if call.replaced:
            larger = _ratio(_bytes(call.node.all_input_nodes[0]), _bytes(call.node))
            return Cost(before, of_blur(call.node, recipe, rates, larger, one))
        if out is not call.node:  # the strided pool stays, for its indices
            made, read = int(_bytes(out) * denser), _bytes(call.node.all_input_nodes[0])
            return Cost(before, before + Price(0, made, read + made) + of_blur(out, recipe, rates, denser, one))
        after = sum((of_node(node, denser, nodes) for node in nodes), Price())
        return Cost(before, after + (of_blur(nodes[-1], recipe, rates, denser, one) if call.blurs else Price()))
    if not call.blurs:
        return Cost(before, before)
    if call.site.enlarges:
        return Cost(before, before + of_blur(call.node, recipe, rates, one, one))
    source = call.node.all_input_nodes[0]
    if not call.subsamples:
        return Cost(before, before + of_blur(source, recipe, rates, one, one))
    axes = len(call.site.stride)
    kept = _ratio(math.prod(of(call.node).sizes[-axes:]), math.prod(of(source).sizes[-axes:]))
    saved = int(_bytes(source) * (1 - kept))
    return Cost(before, before + of_blur(source, recipe, rates, one, kept) + Price(0, 0, -saved))


def _ratio(of: int, to: int) -> Fraction:
    """1 where a map is empty, as where a detector finds nothing."""
    return Fraction(of, to) if to else Fraction(1)


def samples(call: Call) -> int:
    """How many values the call samples: those of its result."""
    return max(1, int(math.prod(of(_result(call.node)).sizes)))


def _result(node: fx.Node) -> fx.Node:
    """The operation, or the first of its results where it has several."""
    return node if of(node).shape is not None else next(user for user in node.users if of(user).name == "part")


def _density(call: Call, out: fx.Node) -> Fraction:
    """How many times the samples of the strided map the dense one has."""
    axes = len(call.site.stride)
    where = call.site.axes or tuple(range(-axes, 0))
    source, sizes = ([of(node).sizes[axis] for axis in where] for node in (call.node.all_input_nodes[0], out))
    padding = call.bound.get("padding", 0)
    pads = per_axis(padding, axes) if not isinstance(padding, str) else (0,) * axes
    lengths = []
    kernel = call.site.kernel or (1,) * axes
    for n, m, s, k, p, left in zip(source, sizes, call.site.stride, kernel, pads, call.left, strict=True):
        lengths.append(max((n + 2 * p - k) // left + 1, (m - 1) * (s // left) + 1))
    return _ratio(math.prod(lengths), math.prod(sizes))
