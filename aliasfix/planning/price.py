"""What a model costs, and what a conversion adds to it, counted on the recorded pass: nothing has to run.

A rewrite says what is evaluated in the place of a call: the operations up to the blur on the dense map, or as they were
with a blur before them. A blur of m taps makes m multiply-adds a sample, reads one map and writes one. What a device
does at once or in parts, in less time or memory, is counted as the steps it stands for.
"""

import math
from collections.abc import Collection
from fractions import Fraction

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .cost import Price


def of_trace(trace: Trace) -> Price:
    """The price of everything that was recorded."""
    return sum((of_node(node) for node in trace.graph.nodes), Price())


def of_node(node: fx.Node, denser: Fraction = Fraction(1), dense: Collection[fx.Node] = ()) -> Price:
    """The price of one operation, on a map of so many times the samples; of what it reads, those in ``dense`` are, too.

    A view, and what only reads a size, cost nothing; an operation in place makes no new map.
    """
    if node.op != "call_function" or not of(node).moves:
        return Price()
    read = sum(of(parent).bytes * (denser if parent in dense else 1) for parent in node.all_input_nodes)
    written = of(node).bytes * denser
    return Price(int(of(node).multiply_adds * denser), int(written) if of(node).makes else 0, int(read + written))


def of_blur(node: fx.Node, taps: int, read: Fraction, kept: Fraction) -> Price:
    """The price of a blur of a map that is ``read`` times the one ``node`` returns, giving one ``kept`` times it."""
    written = int(of(node).bytes * kept)
    values = int(math.prod(of(node).sizes) * kept)
    return Price(values * taps, written, int(of(node).bytes * read) + written)


def ratio(of: int, to: int) -> Fraction:
    """1 where a map is empty, as where a detector finds nothing.

    >>> ratio(6, 4), ratio(6, 0)
    (Fraction(3, 2), Fraction(1, 1))
    """
    return Fraction(of, to) if to else Fraction(1)


def samples(node: fx.Node) -> int:
    """How many values an operation returns."""
    return max(1, math.prod(of(result(node)).sizes))


def result(node: fx.Node) -> fx.Node:
    """The operation, or the first of its results where it has several."""
    return node if of(node).shape is not None else next(user for user in node.users if of(user).name == "part")
