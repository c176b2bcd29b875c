"""Adaptive phase: keep the polyphase component of the largest norm, for every image.

    y  =  Subsample_s ∘ Roll_-d ∘ Blur_m (x),    d = argmax_d ‖Subsample_s ∘ Roll_-d ∘ Blur_m (x)‖

A shift of the input permutes the components; their norms move with them, so that the same samples are kept (APS;
Chaman & Dokmanić, "Truly Shift-Invariant Convolutional Neural Networks", CVPR 2021, section 4). What enlarges rolls its
result back by the same phase (APS-U; Chaman & Dokmanić, "Truly Shift-Equivariant Convolutional Neural Networks with
Adaptive Polyphase Upsampling", Asilomar 2021).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .blur import BlurPool
from .functional import blur_pool
from .ladder import Ladder, Passes, whole
from .listeners import call_paused, listeners
from .resampling import Resampling

Phase = Sequence[Tensor | int]
"""Along each axis, the sample that comes first: one for each image, or the same for all."""


class AdaptiveBlur(BlurPool):
    """Applies a low-pass filter, and keeps, or rolls to, the phase of the pass.

    Args:
        filter, padding: see `BlurPool`.
        resampling: the rate, the stride, and what the layer does with the phase.
        norm: of which the polyphase components are compared: 1, 2 or ``inf``.
        passes: of the model that the layer is in.

    Shape:
        (N, …, N₁, …) → (N, …, ⌈N₁ / stride₁⌉, …).

    Raises:
        AliasfixError: it is called outside of a pass of the model.

    >>> spec = Resampling((2,), (2,), phase="down", sources=(0,), fine=(1.0,), coarse=(2.0,))
    >>> layer = AdaptiveBlur("delta1", "circular", spec, 2.0, Passes())
    >>> with Ladder():
    ...     layer(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    tensor([[[2., 4.]]])
    """

    def __init__(
        self, filter: str | Sequence[float], padding: str, resampling: Resampling, norm: float, passes: Passes
    ) -> None:
        super().__init__(filter, resampling.rate, resampling.stride, padding, resampling.axes)
        self.spec = resampling
        self.norm = norm
        self.passes = passes

    def along_last(self, x: Tensor, start: Sequence[int] | None, size: Sequence[int] | None) -> Tensor:
        """Blur ``x``, and keep or roll to the phase of the pass; ``start`` and ``size`` are not for adaptive phase."""
        out: Tensor = call_paused(listeners(), self._phased, x)
        return out

    def _phased(self, x: Tensor) -> Tensor:
        act = {"down": self._down, "before": self._before, "up": self._up}[self.spec.phase]
        return act(x, self.passes.current())

    def _down(self, x: Tensor, ladder: Ladder) -> Tensor:
        phase = self._known(x, ladder)
        if phase is not None and id(self) not in ladder.deciders:
            return self._blurred(rolled(x, agreed(phase)), self.stride)
        dense = filled(self._blurred(x, (1,) * len(self.stride)), self.stride)
        phase = self._decided(dense, ladder) if phase is None else phase
        return component(dense, agreed(phase), self.stride)

    def _before(self, x: Tensor, ladder: Ladder) -> Tensor:
        dense = self._blurred(x, self.stride)
        phase = self._known(dense, ladder)
        if phase is None:
            rates = [round(c / f) for f, c in zip(self.spec.fine, self.spec.coarse, strict=True)]
            phase = self._decided(filled(dense, rates), ladder)
        return rolled(dense, agreed(phase))

    def _up(self, x: Tensor, ladder: Ladder) -> Tensor:
        phase = self._steps(x, ladder)
        return rolled(self._blurred(x, self.stride), agreed([-d for d in phase]))

    def _blurred(self, x: Tensor, stride: Sequence[int]) -> Tensor:
        if all(len(row) == 1 for row in self.taps):
            return x if max(stride) == 1 else component(x, [0] * len(stride), stride)
        return blur_pool(x, self.kernel, stride, self.padding, taps=self.taps)

    def _known(self, x: Tensor, ladder: Ladder) -> list[Tensor] | None:
        """Return the phase of a lattice that was reached before, None if this layer decides."""
        if not all(ladder.knows(*key) for key in zip(self.spec.sources, self.spec.coarse, strict=True)):
            return None
        return self._steps(x, ladder)

    def _steps(self, x: Tensor, ladder: Ladder) -> list[Tensor]:
        """Return how many samples of the finer lattice lie before the first one of the coarser."""
        coarse = [ladder.offset(*key, x) for key in zip(self.spec.sources, self.spec.coarse, strict=True)]
        fine = [ladder.offset(*key, x) for key in zip(self.spec.sources, self.spec.fine, strict=True)]
        return whole([c - f for c, f in zip(coarse, fine, strict=True)], self.spec.fine)

    def _decided(self, dense: Tensor, ladder: Ladder) -> list[Tensor]:
        """Decide on the phase by the norms of the components, the first in reading order if several are largest."""
        axes = len(self.spec.sources)
        spec = list(zip(self.spec.sources, self.spec.fine, self.spec.coarse, strict=True))
        found = [ladder.candidates(*lattice, dense) for lattice in spec]
        scores = norms(dense.detach(), [starts.shape[1] for starts, _ in found], self.norm)
        for axis, (_, allowed) in enumerate(found):
            shape = [-1, *(allowed.shape[1] if axis == other else 1 for other in range(axes))]
            scores = torch.where(allowed.reshape(shape), scores, -torch.inf)
        best = scores.flatten(1).argmax(1)
        phase: list[Tensor] = []
        for axis in reversed(range(axes)):
            rate = scores.shape[axis + 1]
            phase.insert(0, best % rate)
            best = best // rate
        for (source, _, coarse), (starts, _), d in zip(spec, found, phase, strict=True):
            ladder.offsets[source, coarse] = starts.gather(1, d[:, None])[:, 0]
        ladder.deciders.add(id(self))
        return phase

    def extra_repr(self) -> str:
        """Return the filter, stride, rate, padding and what is done with the phase, for ``print(model)``."""
        return f"{super().extra_repr()}, phase={self.spec.phase!r}"


def norms(x: Tensor, rates: Sequence[int], norm: float) -> Tensor:
    """Return a measure of each polyphase component that grows with its norm over channels and positions.

    Shape:
        (N, …, N₁, …) → (N, rate₁, …), where the rates divide the sizes. In float64.

    >>> norms(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), (2,), 2.0)
    tensor([[10., 20.]], dtype=torch.float64)
    """
    axes = len(rates)
    flat = x.flatten(1, -axes - 1) if x.dim() > axes + 1 else x[:, None]
    flat = flat.float() if flat.dtype.itemsize < 4 else flat
    values = flat.abs() if norm != 2 or flat.is_complex() else flat
    each = values.amax(1) if norm == math.inf else (values if norm == 1 else values.square()).sum(1)
    sizes = [n for size, rate in zip(x.shape[-axes:], rates, strict=True) for n in (size // rate, rate)]
    split, where = each.double().reshape(x.shape[0], *sizes), tuple(range(1, 2 * axes, 2))
    return split.amax(where) if norm == math.inf else split.sum(where)


def filled(x: Tensor, rates: Sequence[int]) -> Tensor:
    """Continue ``x`` circularly to the next size that the rates divide.

    >>> filled(torch.tensor([[[1.0, 2.0, 3.0]]]), (2,))
    tensor([[[1., 2., 3., 1.]]])
    """
    for axis, rate in enumerate(rates):
        dim = axis - len(rates)
        short = -x.shape[dim] % rate
        if short:
            x = torch.cat([x, x.narrow(dim, 0, short)], dim)
    return x


def component(x: Tensor, phase: Phase, stride: Sequence[int]) -> Tensor:
    """Return the samples from ``phase`` on, every ``stride``-th along each axis.

    >>> component(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [1], (2,))
    tensor([[[2., 4.]]])
    """
    return _taken(x, phase, stride, _sliced)


def _sliced(x: Tensor, dim: int, first: int, step: int) -> Tensor:
    behind: list[Any] = [slice(None)] * (-1 - dim)
    return x[(..., slice(first, None, step), *behind)]


def rolled(x: Tensor, phase: Phase) -> Tensor:
    """Roll ``x`` so that the samples at ``phase`` come first.

    >>> rolled(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [1])
    tensor([[[2., 3., 4., 1.]]])
    """
    return _taken(x, phase, (1,) * len(phase), lambda x, dim, first, step: x.roll(-first, dim) if first else x)


def _taken(x: Tensor, phase: Phase, stride: Sequence[int], take: Callable[[Tensor, int, int, int], Tensor]) -> Tensor:
    for axis, (first, step) in enumerate(zip(phase, stride, strict=True)):
        dim = axis - len(phase)
        if isinstance(first, int):
            x = take(x, dim, first, step)
            continue
        n = x.shape[dim]
        where = (first[:, None] + torch.arange(0, n, step, device=x.device)) % n
        index = where.reshape(x.shape[0], *[1] * (x.dim() + dim - 1), where.shape[1], *[1] * (-1 - dim))
        x = x.gather(dim, index.expand(*x.shape[:dim], -1, *x.shape[x.dim() + dim + 1 :]))
    return x


def agreed(phase: Sequence[Tensor]) -> Phase:
    """Return the phase as one number per axis where all images have the same and the values may be read."""
    hidden = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if hidden or torch._C._are_functorch_transforms_active() or any(type(each) is not Tensor for each in phase):
        return phase
    numbers = [each.tolist() for each in phase]
    if all(len(set(each)) == 1 for each in numbers):
        return [int(each[0]) for each in numbers]
    return phase
