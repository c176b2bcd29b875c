"""Compute the price of a model and of its conversion from a trace; nothing runs.

A rewrite evaluates operations on the dense map up to the blur, or as they are behind a blur. A blur of m taps makes m
multiply-adds per sample, reads one map and writes one. Faster implementations are counted as the steps that they
compute.
"""

import math
from collections.abc import Collection
from fractions import Fraction

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .cost import Price


def of_trace(trace: Trace) -> Price:
    """Return the price of all operations of a trace."""
    return sum((of_node(node) for node in trace.graph.nodes), Price())


def of_node(node: fx.Node, denser: Fraction = Fraction(1), dense: Collection[fx.Node] = ()) -> Price:
    """Return the price of an operation on ``denser`` times the samples, as are its arguments in ``dense``.

    A view and reading a size cost nothing. An operation in place makes no new tensor.
    """
    if node.op != "call_function" or not of(node).moves:
        return Price()
    read = sum(of(parent).bytes * (denser if parent in dense else 1) for parent in node.all_input_nodes)
    written = of(node).bytes * denser
    return Price(int(of(node).multiply_adds * denser), int(written) if of(node).makes else 0, int(read + written))


def of_blur(node: fx.Node, taps: int, read: Fraction, kept: Fraction) -> Price:
    """Return the price of a blur from ``read`` times to ``kept`` times the samples that ``node`` returns."""
    written = int(of(node).bytes * kept)
    values = int(math.prod(of(node).sizes) * kept)
    return Price(values * taps, written, int(of(node).bytes * read) + written)


def ratio(of: int, to: int) -> Fraction:
    """Return ``of / to``; 1 if a map is empty, as when a detector finds nothing.

    >>> ratio(6, 4), ratio(6, 0)
    (Fraction(3, 2), Fraction(1, 1))
    """
    return Fraction(of, to) if to else Fraction(1)


def samples(node: fx.Node) -> int:
    """Return how many values an operation returns, at least 1."""
    return max(1, math.prod(of(result(node)).sizes))


def result(node: fx.Node) -> fx.Node:
    """Return the node of the result of an operation: the operation itself, or the first of several results."""
    return node if of(node).shape is not None else next(user for user in node.users if of(user).name == "part")
