"""Pad a map."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn import functional as F


def pad(x: Tensor, borders: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """Pad ``x`` by (before, after) samples on each of the last axes; negative numbers crop.

    >>> pad(torch.tensor([[[1., 2., 3.]]]), [(1, 2)], "reflect")
    tensor([[[2., 1., 2., 3., 2., 1.]]])
    """
    axes = len(borders)
    modes = [_feasible(mode, max(border), x, axis - axes) for axis, border in enumerate(borders)]
    wanted = {m for m, border in zip(modes, borders, strict=True) if border != (0, 0)}
    for each in sorted(wanted):
        flat = [0 if modes[axis] != each else n for axis in reversed(range(axes)) for n in borders[axis]]
        if each == "wrap":
            for axis in range(axes):
                if modes[axis] == each:
                    x = _wrap(x, axis - axes, borders[axis])
        elif each == "constant":
            x = F.pad(x, flat)
        else:
            cropped = [min(n, 0) for n in flat]
            if any(cropped):
                x = F.pad(x, cropped)
            x = F.pad(x, [max(n, 0) for n in flat], mode=each)
    return x


def fold(x: Tensor, borders: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """Add the values of a border to the samples that they were copied from: the adjoint of `pad`.

    The borders must be shorter than the map. ``x`` is overwritten, and the result is a view of it.

    >>> fold(torch.tensor([[[1., 2., 3., 4., 5., 6.]]]), [(1, 2)], "reflect")
    tensor([[[8., 9., 4.]]])
    """
    for axis, (before, after) in enumerate(borders):
        dim = axis - len(borders)
        n = x.shape[dim] - before - after
        inside = x.narrow(dim, before, n)
        for start, count, source in ((0, before, 1), (before + n, after, n - 1 - after)):
            if not count or mode == "zero":
                continue
            border = x.narrow(dim, start, count)
            if mode == "reflect":
                inside.narrow(dim, source, count).add_(border.flip(dim))
            elif mode == "replicate":
                inside.narrow(dim, 0 if start == 0 else n - 1, 1).add_(border.sum(dim, keepdim=True))
            else:
                inside.narrow(dim, n - count if start == 0 else 0, count).add_(border)
        x = inside
    return x


def _feasible(mode: str, reach: int, x: Tensor, dim: int) -> str:
    """Return the mode, or a substitute if the map is too short for it."""
    if mode == "zero":
        return "constant"
    if reach <= 0 or mode == "replicate":
        return mode
    samples = length(x, dim)
    if mode == "reflect" and reach >= samples:
        return "replicate"
    if mode == "circular" and reach > samples:
        return "wrap"
    return mode


def length(x: Tensor, dim: int) -> int:
    """Return a size as an int, also in ``torch.jit.trace``, without the tracer's warning."""
    if torch._C._get_tracing_state() is None:
        return x.shape[dim]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(x.shape[dim])


def _wrap(x: Tensor, dim: int, border: tuple[int, int]) -> Tensor:
    """Pad circularly by more than the length of the map, which ``F.pad`` refuses."""
    length = x.shape[dim]
    return x.index_select(dim, torch.arange(-border[0], length + border[1], device=x.device) % length)


class Borders(nn.Module):
    """Says how the operation whose place it takes continues its input.

    >>> Borders("circular")
    Borders(padding='circular')
    """

    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = padding

    def extra_repr(self) -> str:
        """Return the padding, for ``print(model)``."""
        return f"padding={self.padding!r}"
