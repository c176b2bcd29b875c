"""The layers that a conversion inserts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import filters
from .functional import blur_of, blur_pool, blur_upsample


class BlurPool(nn.Module):
    """Applies a low-pass filter and keeps every ``stride``-th sample.

    Args:
        filter: a filter name or taps, see `aliasfix.filters`.
        rate: per spatial axis, the sampling rate for which the filter is designed; an axis of rate 1 is not blurred.
        stride: per spatial axis, the subsampling of this layer. Default: ``rate``.
        padding: see `aliasfix.layers.functional.blur_pool`.
        axes: the spatial axes counted from the end. Default: the last ones.

    Shape:
        (*, C, N₁, …) → (*, C, ⌈N₁ / stride₁⌉, …).

    The kernel is a non-persistent buffer: a converted model has the state_dict keys of the original.

    >>> BlurPool("tri3", rate=(2, 2))(torch.ones(1, 3, 5, 8)).shape
    torch.Size([1, 3, 3, 4])
    """

    kernel: Tensor
    handle: RemovableHandle | None = None

    def __init__(
        self,
        filter: str | Sequence[float],
        rate: Sequence[int],
        stride: Sequence[int] | None = None,
        padding: str = "reflect",
        axes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.filter = filters.parse(filter)
        self.rate = tuple(rate)
        self.stride = self.rate if stride is None else tuple(stride)
        self.padding = padding
        self.axes = tuple(axes) or tuple(range(-len(self.rate), 0))
        self.taps = tuple(filters.taps(self.filter, step) for step in self.rate)
        self.register_buffer("kernel", self._values().to(torch.get_default_dtype()), persistent=False)

    def _values(self) -> Tensor:
        kernel = torch.ones((), dtype=torch.float64)
        for row in self.taps:
            kernel = kernel[..., None] * torch.tensor(row, dtype=torch.float64)
        return kernel

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BlurPool":
        """Compute the kernel's values when it leaves the meta device: no checkpoint holds them."""
        unknown = self.kernel.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's has no annotations
        if unknown and not self.kernel.is_meta:
            self.kernel.copy_(self._values())
        return self

    def forward(self, x: Tensor, start: Sequence[int] | None = None, size: Sequence[int] | None = None) -> Tensor:
        """Blur and subsample ``x``; ``start`` and ``size`` as in `aliasfix.layers.functional.blur_pool`."""
        last = tuple(range(-len(self.axes), 0))
        if self.axes == last:
            return self.along_last(x, start, size)
        return self.along_last(x.movedim(self.axes, last), start, size).movedim(last, self.axes)

    def along_last(self, x: Tensor, start: Sequence[int] | None, size: Sequence[int] | None) -> Tensor:
        """Blur and subsample a map whose spatial axes are the last ones."""
        return blur_pool(x, self.kernel, self.stride, self.padding, start, size, self.taps)

    def adjoint(self, gradient: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the gradient of an input of that shape, ([N,] C, N₁, …), for a gradient of the output."""
        if len(shape) == len(self.stride) + 1:
            return self.adjoint(gradient[None], (1, *shape))[0]
        return blur_of(shape, self.kernel, self.stride, self.padding).adjoint(gradient, shape)

    def extra_repr(self) -> str:
        """Return the filter, stride, rate and padding, for ``print(model)``."""
        rate = "" if self.rate == self.stride else f", rate={self.rate}"
        return f"{self.filter!r}, stride={self.stride}{rate}, padding={self.padding!r}"


class BlurUpsample(BlurPool):
    """Inserts zeros between the samples and applies a low-pass filter with a gain that compensates for them.

    The mirror image of `BlurPool` (Zhang, ICML 2019): at rate 2, ``rect2`` is nearest-neighbour
    and ``bin4`` bilinear upsampling.

    Shape:
        (*, C, N₁, …) → (*, C, N₁ · rate₁, …).

    >>> BlurUpsample("rect2", rate=(2,))(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 1., 2., 2.]]])
    """

    def along_last(self, x: Tensor, start: Sequence[int] | None, size: Sequence[int] | None) -> Tensor:
        """Upsample ``x`` by the rate."""
        return blur_upsample(x, self.kernel, self.rate, self.padding)
