"""Nonlinearities without aliasing: evaluated on more samples, and filtered before these are dropped.

A pointwise function makes new frequencies, of which those above the Nyquist frequency fold. On a finer grid they have
room; a low-pass drops them, and the way back to the first grid folds nothing.

The square of a signal of the frequencies 0 … K has the frequencies 0 … 2 K. On M samples the frequency 2 K folds onto
M − 2 K, which is above K if M > 3 K: three halves of the samples are enough, not twice as many. That is the 2/3 rule of
spectral methods.

Sources: Karras et al., NeurIPS 2021, section 3.2; Michaeli et al., CVPR 2023; Orszag, "On the Elimination of Aliasing
in Finite-Difference Schemes by Filtering High-Wavenumber Components", J. Atmos. Sci. 1971.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import filters
from ..filters import kaiser
from .batches import map_parts, needs_gradient, runs_now
from .functional import blur_pool, blur_upsample
from .listeners import call_paused, listeners
from .spectral import LONGEST, Grid, is_plain, multiply, resample

Pointwise = Callable[..., Any]


class Filtered(nn.Module):
    """Evaluates a pointwise function on a finer grid, and filters what it returns.

    Args:
        filter: ``ideal``, or any other filter, for Kaiser's of 6 taps a factor.
        axes: the spatial axes, counted from the end.
        factor: the finer grid has so many times the samples.
        padding: how Kaiser's filter continues the map, see `aliasfix.layers.functional.blur_pool`.

    Shape:
        unchanged.

    >>> Filtered("ideal", axes=(-1,))(torch.relu, torch.tensor([[1.0, 1.0, 1.0]])).round(decimals=4)
    tensor([[1., 1., 1.]])
    """

    kernel: Tensor

    def __init__(self, filter: Any, axes: Sequence[int], factor: int = 2, padding: str = "circular") -> None:
        super().__init__()
        self.ideal = filter == filters.IDEAL
        self.axes, self.factor, self.padding = tuple(axes), factor, padding
        row = torch.ones(1) if self.ideal else torch.tensor(kaiser.taps(6 * factor, factor))
        self.register_buffer("kernel", row.to(torch.get_default_dtype()), persistent=False)

    def forward(self, function: Pointwise, *maps: Tensor) -> Tensor:
        """Return ``function(*maps)`` without what folds; the maps have the same shape."""
        out: Tensor = call_paused(listeners(), self._filtered, function, maps)
        return out

    def _filtered(self, function: Pointwise, maps: Sequence[Tensor]) -> Tensor:
        last = tuple(range(-len(self.axes), 0))
        moves = self.axes != last
        moved = [each.movedim(self.axes, last) if moves else each for each in maps]
        lengths = moved[0].shape[-len(self.axes) :]

        def fine(*parts: Tensor) -> Tensor:
            return self.down(function(*(self.up(each) for each in parts)), lengths)

        x = moved[0]
        if len(maps) == 1 and runs_now(x) and not needs_gradient(x):  # a few images at a time
            out = map_parts(fine, x, math.prod(map(self.fine, lengths)) * math.prod(x.shape[1 : -len(lengths)]))
        else:
            out = fine(*moved)
        return (out.movedim(last, self.axes) if moves else out).to(maps[0].dtype)

    def fine(self, length: int) -> int:
        """Return how many samples the finer grid has along an axis."""
        return self.factor * length

    def up(self, x: Tensor) -> Tensor:
        """Return ``x`` on the finer grid, in 32 bits at least; the spatial axes are the last ones."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = len(self.axes)
        if self.ideal:
            return resample(x, [Grid.fill(length, self.fine(length)) for length in x.shape[-axes:]])
        for axis in range(-axes, 0):
            x = kaiser_along(x, axis, self.kernel, self.factor, self.padding, enlarges=True)
        return x

    def down(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return a map on the finer grid filtered, on the first grid."""
        axes = len(self.axes)
        if self.ideal:
            return resample(x, [Grid.fill(x.shape[n - axes], length) for n, length in enumerate(lengths)])
        for axis in range(-axes, 0):
            x = kaiser_along(x, axis, self.kernel, self.factor, self.padding, enlarges=False)
        return x

    def extra_repr(self) -> str:
        """Return the filter and the oversampling, for ``print(model)``."""
        return f"{'ideal' if self.ideal else 'kaiser'}, axes={self.axes}, factor={self.factor}"


class Product(Filtered):
    """A product of two maps without what folds, on three halves of the samples if the filter is ideal.

    >>> Product("ideal", axes=(-1,))(torch.mul, torch.ones(1, 5), torch.ones(1, 5)).round(decimals=4)
    tensor([[1., 1., 1., 1., 1.]])
    """

    def fine(self, length: int) -> int:
        """Return the fewest samples on which a square does not fold onto the frequencies that are kept."""
        return fewest(length)


def fewest(length: int) -> int:
    """Return the fewest samples on which the square of a signal of ``length`` samples has what the signal can show.

    >>> fewest(8), fewest(9), fewest(64)
    (10, 13, 94)
    """
    return 3 * ((length - 1) // 2) + 1


class Polynomial(Product):
    """a₀ + a₁ x + a₂ x² with coefficients for every channel: the nonlinearity that is exact on a finite grid.

    The square alone needs the finer grid. ``coefficients`` is a parameter, (3, C). A map whose deviation from a centre
    is larger than a limit, as root mean square over its positions, is scaled down to it first, since squares of squares
    have no bound. One number for each image and channel scales the whole map, so that shifts still commute. ``bounds``
    is a buffer, (2, C): the centres and the limits, which are infinite until a fit.

    Args:
        axes: the spatial axes, counted from the end.
        channel: the axis of the channels, counted from the end.
        channels: C.
        start: a₀, a₁ and a₂ of all channels.

    Shape:
        unchanged.

    >>> Polynomial((-1,), -2, 3, (0.0, 1.0, 0.5))(None, torch.ones(1, 3, 5)).round(decimals=4)[0, 0]
    tensor([1.5000, 1.5000, 1.5000, 1.5000, 1.5000], grad_fn=<SelectBackward0>)
    """

    bounds: Tensor

    def __init__(self, axes: Sequence[int], channel: int, channels: int, start: Sequence[float]) -> None:
        super().__init__(filters.IDEAL, axes)
        self.channel = channel
        values = torch.tensor(tuple(start), dtype=torch.get_default_dtype())
        self.coefficients = nn.Parameter(values[:, None].repeat(1, channels))
        self.register_buffer("bounds", torch.tensor([[0.0], [torch.inf]]).repeat(1, channels).to(values))

    def forward(self, function: Pointwise | None, *maps: Tensor) -> Tensor:
        """Return the polynomial of the one map, whatever the function that it takes the place of."""
        (x,) = maps
        a, b, c = (self.by_channel(row) for row in self.coefficients)
        centre, limit = (self.by_channel(row) for row in self.bounds)
        deviation = (x - centre).square().mean(self.axes, keepdim=True).clamp_min(1e-12).sqrt()
        x = centre + (x - centre) * (torch.minimum(deviation, limit) / deviation)  # 1, without a gradient, within it
        out: Tensor = a + b * x + c * super().forward(torch.square, x)
        return out.to(x.dtype)

    def by_channel(self, row: Tensor) -> Tensor:
        """Return a number for each channel in the shape in which it meets the map."""
        return row.reshape(-1, *[1] * (-self.channel - 1))

    def extra_repr(self) -> str:
        """Return the number of channels, for ``print(model)``."""
        return f"{self.coefficients.shape[1]}, axes={self.axes}"


def kaiser_along(x: Tensor, axis: int, kernel: Tensor, factor: int, padding: str, enlarges: bool) -> Tensor:
    """Sample one axis up or down by a factor, with a filter and its borders.

    Along a short axis it is a product with a matrix, which holds the borders, too: a fraction of a convolution's time.
    """
    length = x.shape[axis]
    if is_plain() and length * factor <= LONGEST and not kernel.is_meta:
        with torch.inference_mode(False), torch.no_grad():
            own = _matrix(length, len(kernel), factor, padding, enlarges, x.dtype, x.device)
        return multiply(x, axis, own)
    rows = x.movedim(axis, -1)
    out = _sampled(rows.reshape(-1, 1, length), kernel, factor, padding, enlarges)
    return out.reshape(*rows.shape[:-1], out.shape[-1]).movedim(-1, axis)


def _sampled(x: Tensor, kernel: Tensor, factor: int, padding: str, enlarges: bool) -> Tensor:
    if enlarges:
        return blur_upsample(x, kernel, (factor,), padding)
    return blur_pool(x, kernel, (factor,), padding)


@functools.lru_cache(maxsize=256)
def _matrix(
    length: int, taps: int, factor: int, padding: str, enlarges: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the matrix (M, N) of Kaiser's filter along an axis: what it makes of every unit impulse."""
    kernel = torch.tensor(kaiser.taps(taps, factor), dtype=torch.float64, device="cpu")
    impulses = torch.eye(length, dtype=torch.float64, device="cpu")[:, None]
    return _sampled(impulses, kernel, factor, padding, enlarges)[:, 0].T.contiguous().to(device, dtype)
