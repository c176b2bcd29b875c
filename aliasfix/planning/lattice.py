"""Compute the lattice of every tensor, and compare the lattices of branches that meet.

Sample i of a tensor lies at ``offset + stride * i`` along an axis, in samples of the model's input. The output of a
convolution with kernel k, stride s, padding p and dilation d has the offset ``offset + stride (d (k-1)/2 - p)`` and the
stride ``stride * s``. An odd filter does not move the lattice; an even filter moves it by half a sample.
"""

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .permutation import permutation
from .plan import Drift, Lattice
from .rule import Site, per_axis, spatial_axes
from .tail import kind


class Along(NamedTuple):
    """Where the samples lie along an axis: on the axis ``source`` of the input, counted from 0."""

    stride: float
    offset: float
    source: int


Axis = Along | None  # None where the axis is not spatial or not known
Position = tuple[Axis, ...]

WINDOWS = (
    *("conv1d", "conv2d", "conv3d"),
    *(
        f"{pool}{n}d{end}"
        for n in (1, 2, 3)
        for pool, end in (("max_pool", ""), ("max_pool", "_with_indices"), ("avg_pool", ""))
    ),
)
_RESHAPES = {"reshape", "view", "flatten", "unflatten"}
_MERGES = {"add", "sub", "mul", "cat", "concat"}


def check(trace: Trace, shifts: Mapping[fx.Node, tuple[float, ...]]) -> Lattice:
    """Compare the lattices that meet at every merge, before and after a conversion.

    Args:
        trace: the record of the model.
        shifts: how far the blur of a converted operation moves its output, per axis in samples of its input.
    """
    before, after = positions(trace, {}), positions(trace, shifts)
    merges = aligned_before = aligned_after = 0
    drifts = []
    for node in trace.graph.nodes:
        if kind(of(node).name) not in _MERGES:
            continue
        gaps = [_gaps(node, before), _gaps(node, after)]
        if gaps[0] is None or gaps[1] is None:
            continue
        merges += 1
        aligned_before += not any(gaps[0].values())
        aligned_after += not any(gaps[1].values())
        for axis, gap in gaps[1].items():
            if abs(gap - gaps[0].get(axis, 0.0)) > 1e-6:
                drifts.append(Drift(of(node).path, of(node).name, axis, gap - gaps[0].get(axis, 0.0)))
    return Lattice(merges, aligned_before, aligned_after, tuple(drifts))


def _branches(node: fx.Node) -> list[fx.Node]:
    return [parent for parent in node.all_input_nodes if of(parent).variable and of(parent).shape]


def _gaps(node: fx.Node, positions: Mapping[fx.Node, Position]) -> dict[int, float] | None:
    """Return how far apart the offsets of the branches are, by axis from the end; None if they cannot be compared."""
    branches = _branches(node)
    if len(branches) < 2:
        return None
    gaps: dict[int, float] = {}
    dims = min(len(positions[branch]) for branch in branches)
    for axis in range(-dims, 0):
        known = [positions[b][axis] for b in branches if of(b).sizes[axis] > 1]
        offsets = [place.offset for place in known if place is not None]
        if len(offsets) > 1:
            gaps[axis] = max(offsets) - min(offsets)
    return gaps or None


def positions(
    trace: Trace, shifts: Mapping[fx.Node, tuple[float, ...]], sites: Mapping[fx.Node, Site] = MappingProxyType({})
) -> dict[fx.Node, Position]:
    """Return where the samples of every tensor lie.

    Args:
        trace: the pass.
        shifts: how far the blur of a converted operation moves its output, per axis in samples of its input.
        sites: the calls that sample, for those whose function says nothing of it, as slices.
    """
    found: dict[fx.Node, Position] = {}
    for node in trace.graph.nodes:
        shape = of(node).shape
        if node.op == "placeholder" and shape is not None:
            found[node] = tuple(None if axis < 2 else Along(1.0, 0.0, axis - 2) for axis in range(len(shape)))
        elif shape is None and of(node).name not in WINDOWS:
            source = _branches(node)
            found[node] = found[source[0]] if source else ()
        elif node.op != "call_function" or not of(node).variable:
            found[node] = (None,) * len(shape or ())
        else:
            found[node] = _step(node, found, shifts.get(node))
            if node in sites:
                found[node] = _sampled(node, found, sites[node])
    return found


def _sampled(node: fx.Node, found: Mapping[fx.Node, Position], site: Site) -> Position:
    """Fill in the axes that a call samples, if its function says nothing of them."""
    out, source, parent = list(found[node]), found[node.all_input_nodes[0]], of(node.all_input_nodes[0])
    for axis, rate in zip(site.axes or range(-len(site.stride), 0), site.stride, strict=True):
        place, to = source[axis], axis
        if place is not None and of(node).name in _RESHAPES:  # H becomes H/s and s
            behind = _behind(parent.sizes)[axis] * rate
            to = next(n for n in range(-len(out), 0) if _behind(of(node).sizes)[n] == behind)
        if place is not None and out[to] is None:
            out[to] = place._replace(stride=place.stride / rate if site.enlarges else place.stride * rate)
    return tuple(out)


def _behind(shape: Sequence[int]) -> list[int]:
    """Return how many values lie behind each axis.

    >>> _behind((5, 2, 3))
    [6, 3, 1]
    """
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _step(node: fx.Node, found: Mapping[fx.Node, Position], shift: tuple[float, ...] | None) -> Position:
    op, shape = of(node).name, of(node).shape or ()
    source = [found[branch] for branch in node.all_input_nodes if of(branch).variable and branch in found]
    if kind(op) == "permute":
        return tuple(source[0][axis] for axis in permutation(node) or ())
    if op == "part":
        return found[node.all_input_nodes[0]][-len(shape) :]
    if op in _RESHAPES:
        before = of(node.all_input_nodes[0]).sizes
        whole = dict(zip(zip(_behind(before), before, strict=True), source[0], strict=True))
        return tuple(whole.get(axis) if axis[1] > 1 else None for axis in zip(_behind(shape), shape, strict=True))
    if op in WINDOWS:
        return _windowed(node, source[0], shift)
    if op == "pad":
        return _padded(node, source[0])
    if kind(op) in ("interpolate", "pixel_shuffle", "conv_transpose2d"):
        return _scaled(node, source[0])
    merged: list[Axis] = []
    for axis in range(-len(shape), 0):
        here = [
            place[axis]
            for place, parent in zip(source, _branches(node), strict=False)
            if -axis <= len(place) and of(parent).sizes[axis] == shape[axis]
        ]
        merged.append(next((place for place in here if place is not None), None))
    return tuple(merged)


def _padded(node: fx.Node, source: Position) -> Position:
    borders: Any = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
    out = list(source)
    for axis in range(1, len(borders) // 2 + 1):
        place = source[-axis]
        if place is not None:
            out[-axis] = place._replace(offset=place.offset - place.stride * borders[2 * axis - 2])
    return tuple(out)


def window(node: fx.Node) -> tuple[int, ...]:
    """Return the size of the window of a convolution or pool along each spatial axis."""
    axes, bound = spatial_axes(of(node).name), of(node).arguments
    return of(bound["weight"]).sizes[-axes:] if "weight" in bound else per_axis(bound["kernel_size"], axes)


def _windowed(node: fx.Node, source: Position, shift: tuple[float, ...] | None) -> Position:
    axes, bound, kernel = spatial_axes(of(node).name), of(node).arguments, window(node)
    stride = per_axis(bound.get("stride") or (1 if "weight" in bound else kernel), axes)
    padding = bound.get("padding", 0)
    dilation = per_axis(bound.get("dilation", 1), axes)
    spread = [d * (k - 1) / 2 for d, k in zip(dilation, kernel, strict=True)]
    before = [0.0 if padding == "valid" else s for s in spread] if isinstance(padding, str) else per_axis(padding, axes)
    out: list[Axis] = [None] * (len(source) - axes)
    for axis in range(axes):
        place = source[axis - axes]
        moved = spread[axis] - before[axis] + (shift[axis] if shift else 0.0)
        if place is not None:
            place = Along(place.stride * stride[axis], place.offset + place.stride * moved, place.source)
        out.append(place)
    return tuple(out)


def _scaled(node: fx.Node, source: Position) -> Position:
    """Place the s samples of an enlargement around the sample that they come from."""
    shape, old = of(node).sizes, of(node.all_input_nodes[0]).sizes
    out: list[Axis] = []
    for axis in range(-len(shape), 0):
        place = source[axis]
        if place is None or axis <= -len(shape) + 1:  # the first axis is empty if a detector finds nothing
            out.append(None)
        else:
            scale = shape[axis] / old[axis]
            centre = place.offset - place.stride * (scale - 1) / (2 * scale)
            out.append(Along(place.stride / scale, centre, place.source))
    return tuple(out)
