"""Resampling functions, which the layers and the rewritten operations call.

A ``TorchFunctionMode`` sees each as one call, like the functions of ``torch.nn.functional``. A recorder, an FX tracer
or an outer rewrite therefore sees ``blur_pool``, not its parts.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .convolution import TRANSPOSED, Blur, own_type
from .listeners import call_paused, listeners
from .padding import length, pad


def blur_pool(
    x: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: str = "reflect",
    start: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
    taps: Sequence[Sequence[float]] | None = None,
) -> Tensor:
    """Low-pass ``x`` with ``kernel`` and keep every ``stride``-th sample (BlurPool; Zhang, ICML 2019, section 3).

    Output sample i lies on input sample ``stride * i + start`` along each axis (half a sample later for an
    even number of taps: ⌊(m-1)/2⌋ samples of border before, ⌈(m-1)/2⌉ after).

    Args:
        x: (*, C, spatial…), with as many spatial axes as ``kernel`` has.
        kernel: (m₁, …), of sum 1, applied to every channel.
        stride: one per spatial axis.
        padding: ``reflect`` (``replicate`` along an axis too short to reflect), ``replicate``, ``zero``
            or ``circular``.
        start: the input sample on which output sample 0 lies. Default: 0.
        size: the spatial size of the output. Default: ⌈N / stride⌉.
        taps: per spatial axis, the filter whose outer product ``kernel`` is; used by a compiler.

    Shape:
        (*, C, N₁, …) → (*, C, ⌈N₁ / stride₁⌉, …), or ``size``.

    >>> import torch
    >>> x = torch.tensor([[[0., 0., 1., 1., 0., 0., 1., 1.]]])
    >>> blur_pool(x, torch.tensor([.25, .5, .25]), (2,), "circular")
    tensor([[[0.2500, 0.7500, 0.2500, 0.7500]]])
    """
    if has_torch_function_unary(x):
        options: dict[str, Any] = {"padding": padding, "start": start, "size": size, "taps": taps}
        return handle_torch_function(blur_pool, (x,), x, kernel, stride, **options)
    if torch.compiler.is_dynamo_compiling():  # it shows a mode the parts of this function, not the whole
        out: Tensor = call_paused(listeners(), _blur_pool, x, kernel, stride, padding, start, size, taps)
        return out
    return _blur_pool(x, kernel, stride, padding, start, size, taps)


def _blur_pool(
    x: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: str,
    start: Sequence[int] | None,
    size: Sequence[int] | None,
    taps: Sequence[Sequence[float]] | None,
) -> Tensor:
    axes = kernel.dim()
    if not (x.is_floating_point() or x.is_complex()):
        return _blur_pool(x.float(), kernel, stride, padding, start, size, taps).round().to(x.dtype)
    lead = x.shape[: -axes - 1]
    if len(lead) != 1:
        batch = x.flatten(0, len(lead) - 1) if lead else x[None]
        out = _blur_pool(batch, kernel, stride, padding, start, size, taps)
        return out.reshape(*lead, *out.shape[1:])
    return blur_of(x.shape, kernel, stride, padding, start, size, taps)(x)


def blur_of(
    shape: Sequence[int],
    kernel: Tensor,
    stride: Sequence[int],
    padding: str = "reflect",
    start: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
    taps: Sequence[Sequence[float]] | None = None,
) -> Blur:
    """Return the `Blur` that `blur_pool` applies to a batch of the shape (N, C, N₁, …)."""
    borders = []
    for axis in range(kernel.dim()):
        count = length(kernel, axis)
        before = (count - 1) // 2 - (0 if start is None else start[axis])
        after = count // 2
        if size is not None:
            after = (size[axis] - 1) * stride[axis] + count - shape[axis - kernel.dim()] - before
        borders.append((before, after))
    return Blur(kernel, tuple(stride), tuple(borders), padding, taps)


def blur_upsample(x: Tensor, kernel: Tensor, rate: Sequence[int], padding: str = "reflect") -> Tensor:
    """Insert ``rate - 1`` zeros after every sample and low-pass with ``kernel`` times the product of the rates.

    The samples lie where those of nearest-neighbour upsampling lie, ⌊(m+s-2)/2⌋ samples of border before, of the map
    continued at its own resolution: at rate 2 the border of `blur_pool` mirrored (Zhang, ICML 2019). At
    every rate ``rect2`` is nearest-neighbour upsampling. Where m + s is odd they lie half a sample later.

    Shape:
        (*, C, N₁, …) → (*, C, N₁ · rate₁, …), as many spatial axes as ``kernel`` has.

    >>> import torch
    >>> blur_upsample(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([0.25, 0.5, 0.25]), (2,), "replicate")
    tensor([[[1.0000, 1.5000, 2.0000, 3.0000, 4.0000, 4.0000]]])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(blur_upsample, (x,), x, kernel, rate, padding=padding)
    if torch.compiler.is_dynamo_compiling():
        out: Tensor = call_paused(listeners(), _blur_upsample, x, kernel, rate, padding)
        return out
    return _blur_upsample(x, kernel, rate, padding)


def _blur_upsample(x: Tensor, kernel: Tensor, rate: Sequence[int], padding: str) -> Tensor:
    axes = kernel.dim()
    borders, crop = [], []
    for axis in range(axes):
        taps, step = length(kernel, axis), rate[axis]
        before = (taps + step - 2) // 2
        reach = -(-before // step)
        borders.append((reach, -(-taps // step)))
        crop.append(reach * step + taps - 1 - before)
    lengths = [x.shape[axis - axes] * rate[axis] for axis in range(axes)]
    x = pad(x, borders, padding)
    weight = (kernel.flip(tuple(range(axes))) * math.prod(rate)).to(x)
    channels = x.shape[-axes - 1]
    with own_type(x):
        x = TRANSPOSED[axes](x, weight.expand(channels, 1, *kernel.shape), stride=tuple(rate), groups=channels)
    for axis in range(axes):
        x = x.narrow(axis - axes, crop[axis], lengths[axis])
    return x
