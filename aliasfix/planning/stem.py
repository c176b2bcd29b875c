"""The stem policy: what happens to the convolutions that see the input first."""

from collections.abc import Collection

from torch import fx

from ..tracing.trace import Trace
from .rule import Site


def stems(trace: Trace, sampling: Collection[fx.Node]) -> set[fx.Node]:
    """The sampling operations with no other one between them and an input."""
    below: set[fx.Node] = set()
    found = set()
    for node in trace.graph.nodes:
        behind = any(parent in below for parent in node.all_input_nodes)
        if node in sampling and not behind:
            found.add(node)
        if behind or node in sampling:
            below.add(node)
    return found


def split(site: Site) -> tuple[int, ...] | None:
    """The stride that stays in an overlapping stem convolution, the rest of it going to the blur; None if none."""
    if max(site.stride) < 4 or any(s > 1 and (s % 2 or k <= s) for s, k in zip(site.stride, site.kernel, strict=True)):
        return None
    return tuple(max(1, s // 2) for s in site.stride)


def reason_to_keep(site: Site, policy: str) -> str | None:
    """Why the policy leaves a stem convolution alone, None where it does not."""
    if site.stride == site.kernel and max(site.stride) >= 4:
        return "It is a patch embedding: its channels hold the patch, and blurring would erase it."
    if policy == "keep":
        return "It is a stem convolution, and stem='keep' leaves those alone."
    if policy == "paper" and split(site) is None:
        return "It is a stem convolution, where dense evaluation is costliest; stem='full' converts it."
    return None
