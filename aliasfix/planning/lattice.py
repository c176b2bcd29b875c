"""Compute the lattice of every tensor, and compare the lattices of branches that meet.

Sample i of a tensor lies at ``offset + stride * i`` along an axis, in samples of the model's input. The output of a
convolution with kernel k, stride s, padding p and dilation d has the offset ``offset + stride (d (k-1)/2 - p)`` and the
stride ``stride * s``. An odd filter does not move the lattice; an even filter moves it by half a sample.
"""

from collections.abc import Mapping
from typing import Any

from torch import fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .permutation import permutation
from .plan import Drift, Lattice
from .rule import per_axis, spatial_axes
from .tail import kind

Axis = tuple[float, float] | None  # (stride, offset), None where the axis is not spatial or not known
Position = tuple[Axis, ...]

WINDOWS = ("conv1d", "conv2d", "conv3d", *(f"{m}_pool{n}d" for m in ("max", "avg") for n in (1, 2, 3)))
_MERGES = {"add", "sub", "mul", "cat", "concat"}


def check(trace: Trace, shifts: Mapping[fx.Node, tuple[float, ...]]) -> Lattice:
    """Compare the lattices that meet at every merge, before and after a conversion.

    Args:
        trace: the record of the model.
        shifts: how far the blur of a converted operation moves its output, per axis in samples of its input.
    """
    before, after = _positions(trace, {}), _positions(trace, shifts)
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
        offsets = [place[1] for place in known if place is not None]
        if len(offsets) > 1:
            gaps[axis] = max(offsets) - min(offsets)
    return gaps or None


def _positions(trace: Trace, shifts: Mapping[fx.Node, tuple[float, ...]]) -> dict[fx.Node, Position]:
    found: dict[fx.Node, Position] = {}
    for node in trace.graph.nodes:
        shape = of(node).shape
        if node.op == "placeholder" and shape is not None:
            found[node] = tuple(None if axis < 2 else (1.0, 0.0) for axis in range(len(shape)))
        elif shape is None:
            source = _branches(node)
            found[node] = found[source[0]] if source else ()
        elif node.op != "call_function" or not of(node).variable:
            found[node] = (None,) * len(shape)
        else:
            found[node] = _step(node, found, shifts.get(node))
    return found


def _step(node: fx.Node, found: Mapping[fx.Node, Position], shift: tuple[float, ...] | None) -> Position:
    op, shape = of(node).name, of(node).sizes
    source = [found[branch] for branch in node.all_input_nodes if of(branch).variable and branch in found]
    if kind(op) == "permute":
        return tuple(source[0][axis] for axis in permutation(node) or ())
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
        out[-axis] = None if place is None else (place[0], place[1] - place[0] * borders[2 * axis - 2])
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
        out.append(None if place is None else (place[0] * stride[axis], place[1] + place[0] * moved))
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
            out.append((place[0] / scale, place[1] - place[0] * (scale - 1) / (2 * scale)))
    return tuple(out)
