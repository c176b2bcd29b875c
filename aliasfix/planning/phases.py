"""Adaptive phase: which lattices every call reads and makes.

All calls that reach a lattice share its phase. The first one in a pass decides, the others follow.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from . import lattice
from .lattice import Axis, Position
from .provenance import is_spatial
from .rule import Site


@dataclass(frozen=True)
class Reach:
    """The two lattices of a call that samples, along each of its spatial axes.

    Args:
        sources: the axes of the input.
        fine: the total strides of the finer lattice.
        coarse: those of the coarser one.
    """

    sources: tuple[int, ...]
    fine: tuple[float, ...]
    coarse: tuple[float, ...]

    @property
    def reached(self) -> set[tuple[int, float]]:
        """The lattices that are coarser than those read, each as an axis and a total stride."""
        return {(s, c) for s, f, c in zip(self.sources, self.fine, self.coarse, strict=True) if c != f}


def reaches(trace: Trace, sites: Mapping[fx.Node, Site]) -> dict[fx.Node, Reach]:
    """Return the lattices of every call for which they are known.

    Args:
        trace: the pass.
        sites: the calls that sample.
    """
    where = lattice.positions(trace, {}, {node: site for node, site in sites.items() if site.stride})
    images = next((of(node).sizes[0] for node in trace.graph.nodes if node.op == "placeholder" and of(node).shape), 0)
    found = {}
    for node, site in sites.items():
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if not site.stride or source is None or not of(source).shape or of(source).sizes[0] != images:
            continue
        reach = _reach(trace, source, where[source], site)
        if reach is not None:
            found[node] = reach
    return found


def _reach(trace: Trace, source: fx.Node, places: Position, site: Site) -> Reach | None:
    axes = site.axes or tuple(range(-len(site.stride), 0))
    here: Sequence[Axis] = [places[axis] if is_spatial(trace, source, axis) else None for axis in axes]
    known = [place for place in here if place is not None]
    if len(known) < len(axes):
        return None
    strides = tuple(place.stride for place in known)
    sign = -1 if site.enlarges else 1
    others = tuple(stride * rate**sign for stride, rate in zip(strides, site.stride, strict=True))
    fine, coarse = (others, strides) if site.enlarges else (strides, others)
    if not all(stride.is_integer() for stride in (*coarse, *(() if site.enlarges else fine))):
        return None  # finer than the input: a shift by a sample of the input is one by several samples
    return Reach(tuple(place.source for place in known), fine, coarse)


def shared(reaches: Mapping[fx.Node, Reach], fixed: Collection[fx.Node]) -> dict[fx.Node, Reach]:
    """Return the calls whose phase may adapt: those that reach no lattice that a call of fixed phase reaches, too."""
    taken = {lattice for node in fixed if node in reaches for lattice in reaches[node].reached}
    return {node: reach for node, reach in reaches.items() if node not in fixed and not reach.reached & taken}
