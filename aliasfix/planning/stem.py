"""The stem policy: what happens to the strided convolutions that read the input."""

from collections.abc import Collection
from math import prod

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .lattice import WINDOWS, window
from .rule import Site


def stems(trace: Trace, sampling: Collection[fx.Node]) -> set[fx.Node]:
    """The sampling operations that read an input: no window and no sampling lies in between.

    What acts on each position by itself may, as normalisation, padding, resizing and a 1x1 convolution do.
    """
    below: set[fx.Node] = set()
    found = set()
    for node in trace.graph.nodes:
        behind = any(parent in below for parent in node.all_input_nodes)
        if node in sampling and not behind:
            found.add(node)
        if behind or node in sampling or _mixes_positions(node):
            below.add(node)
    return found


def _mixes_positions(node: fx.Node) -> bool:
    if node.op != "call_function" or of(node).name not in WINDOWS or not of(node).variable:
        return False
    return prod(window(node)) > 1


def split(site: Site) -> tuple[int, ...] | None:
    """The stride that stays in an overlapping stem convolution, the rest of it going to the blur; None if none."""
    if max(site.stride) < 4 or any(s > 1 and (s % 2 or k <= s) for s, k in zip(site.stride, site.kernel, strict=True)):
        return None
    return tuple(max(1, s // 2) for s in site.stride)


def reason_to_keep(site: Site, policy: str) -> str | None:
    """Why the policy leaves a stem convolution alone, None where it does not."""
    if policy == "whole":
        return None
    if site.stride == site.kernel and max(site.stride) >= 4:
        return "It is a patch embedding: its channels hold the patch, and blurring would erase it."
    if policy == "keep":
        return "It is a stem convolution, and stem='keep' leaves those alone."
    if policy == "paper" and split(site) is None:
        return "It is a stem convolution, where dense evaluation is costliest; stem='full' converts it."
    return None
