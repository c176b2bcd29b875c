"""The layers of the ideal low-pass filter."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..filters import IDEAL
from .blur import BlurPool
from .listeners import call_paused, listeners
from .spectral import Grid, resample


def ideal_pool(
    x: Tensor,
    rate: Sequence[int],
    stride: Sequence[int],
    wraps: bool = False,
    start: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
) -> Tensor:
    """Drop every frequency from half the new rate on, and keep every ``stride``-th sample.

    Args:
        x: (*, C, spatial…), with as many spatial axes as there are rates. Each is taken as one period.
        rate: per spatial axis, the sampling rate for which the filter is designed; an axis of rate 1 is not filtered.
        stride: per spatial axis, the subsampling.
        wraps: whether the map is a period, so that a length which is no multiple of the stride is resampled evenly.
            Else output sample i lies on input sample ``stride * i + start``.
        start: the input sample on which output sample 0 lies. Default: 0.
        size: the spatial size of the output. Default: ⌈N / stride⌉.

    Shape:
        (*, C, N₁, …) → (*, C, ⌈N₁ / stride₁⌉, …), or ``size``.

    >>> import torch
    >>> x = torch.tensor([[[0., 0., 1., 1., 0., 0., 1., 1.]]])
    >>> ideal_pool(x, (2,), (2,)).round(decimals=4).abs()
    tensor([[[0.5000, 0.5000, 0.5000, 0.5000]]])
    """
    if has_torch_function_unary(x):
        options: dict[str, Any] = {"wraps": wraps, "start": start, "size": size}
        seen: Tensor = handle_torch_function(ideal_pool, (x,), x, rate, stride, **options)
        return seen
    grids = []
    for axis, (r, s) in enumerate(zip(rate, stride, strict=True)):
        length, first = x.shape[axis - len(rate)], 0 if start is None else start[axis]
        count = -(-length // s) if size is None else size[axis]
        highest = (-(-length // r) - 1) // 2 if r > 1 else length // 2
        step = length / count if wraps and count == -(-length // s) else s
        grids.append(None if r == s == 1 and (first, count) == (0, length) else Grid(count, first, step, highest))
    out: Tensor = call_paused(listeners(), _resampled, x, grids)
    return out


def ideal_upsample(x: Tensor, rate: Sequence[int]) -> Tensor:
    """Interpolate ``rate - 1`` samples between neighbours, with no new frequency.

    The samples lie where those of nearest-neighbour upsampling lie: the ``rate`` samples of one input sample around it.

    Shape:
        (*, C, N₁, …) → (*, C, N₁ · rate₁, …).

    >>> import torch
    >>> ideal_upsample(torch.ones(1, 1, 3), (2,)).round(decimals=4)
    tensor([[[1., 1., 1., 1., 1., 1.]]])
    """
    if has_torch_function_unary(x):
        seen: Tensor = handle_torch_function(ideal_upsample, (x,), x, rate)
        return seen
    grids = []
    for axis, r in enumerate(rate):
        length = x.shape[axis - len(rate)]
        first = (1 - r) / (2 * r)
        grids.append(None if r == 1 else Grid(length * r, first, 1 / r, (length - 1) // 2))
    out: Tensor = call_paused(listeners(), _resampled, x, grids)
    return out


def _resampled(x: Tensor, grids: Sequence[Grid | None]) -> Tensor:
    """Resample a map with any number of axes before the channels, of any type."""
    if not (x.is_floating_point() or x.is_complex()):
        return _resampled(x.float(), grids).round().to(x.dtype)
    lead = x.shape[: -len(grids) - 1]
    if len(lead) == 1:
        return resample(x, grids)
    out = resample(x.flatten(0, len(lead) - 1) if lead else x[None], grids)
    return out.reshape(*lead, *out.shape[1:])


class IdealPool(BlurPool):
    """Drops every frequency from half the new rate on, and keeps every ``stride``-th sample.

    The filter has no taps and knows no borders: the map is one period. Its ``kernel`` is the number 1, which only has
    a type and a device.

    Args:
        rate, stride, axes: as for `BlurPool`.
        padding: that of the operations around it. With ``circular``, a length that is no multiple of the stride is
            resampled evenly.

    Shape:
        (*, C, N₁, …) → (*, C, ⌈N₁ / stride₁⌉, …).

    >>> IdealPool(rate=(2, 2))(torch.ones(1, 3, 5, 8)).shape
    torch.Size([1, 3, 3, 4])
    """

    def __init__(
        self,
        rate: Sequence[int],
        stride: Sequence[int] | None = None,
        padding: str = "circular",
        axes: Sequence[int] = (),
    ) -> None:
        super().__init__("delta1", rate, stride, padding, axes)
        self.filter = IDEAL

    def along_last(self, x: Tensor, start: Sequence[int] | None, size: Sequence[int] | None) -> Tensor:
        """Filter and subsample a map whose spatial axes are the last ones."""
        return ideal_pool(x, self.rate, self.stride, self.padding == "circular", start, size)

    def adjoint(self, gradient: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the gradient of an input of that shape, ([N,] C, N₁, …), for a gradient of the output."""
        found: Tensor = torch.autograd.functional.vjp(self, gradient.new_zeros(tuple(shape)), gradient)[1]
        return found


class IdealUpsample(IdealPool):
    """Interpolates between the samples with no new frequency: the mirror image of `IdealPool`.

    Shape:
        (*, C, N₁, …) → (*, C, N₁ · rate₁, …).

    >>> IdealUpsample(rate=(2,))(torch.ones(1, 1, 3)).shape
    torch.Size([1, 1, 6])
    """

    def along_last(self, x: Tensor, start: Sequence[int] | None, size: Sequence[int] | None) -> Tensor:
        """Upsample ``x`` by the rate."""
        return ideal_upsample(x, self.rate)
