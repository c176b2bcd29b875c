"""Resampling as functions: what the modules and the rewritten operations call.

Each is one call to a ``TorchFunctionMode``, like the functions of ``torch.nn.functional``, so a recorder, an
FX tracer or an outer rewrite sees ``blur_pool`` and not its parts.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from .parts import in_parts, needs_gradient, runs_now

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def blur_pool(
    x: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: str = "reflect",
    start: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
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
        start: the input sample that output sample 0 lies on; 0 if None.
        size: the output's spatial size; ⌈N / stride⌉ if None.

    Shape:
        (*, C, N₁, …) → (*, C, ⌈N₁ / stride₁⌉, …), or ``size``.

    >>> x = torch.tensor([[[0., 0., 1., 1., 0., 0., 1., 1.]]])
    >>> blur_pool(x, torch.tensor([.25, .5, .25]), (2,), "circular")
    tensor([[[0.2500, 0.7500, 0.2500, 0.7500]]])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(blur_pool, (x,), x, kernel, stride, padding=padding, start=start, size=size)
    axes = kernel.dim()
    borders = []
    for axis in range(axes):
        taps = _length(kernel, axis)
        before = (taps - 1) // 2 - (0 if start is None else start[axis])
        after = taps // 2
        if size is not None:
            after = (size[axis] - 1) * stride[axis] + taps - x.shape[axis - axes] - before
        borders.append((before, after))
    if not (x.is_floating_point() or x.is_complex()):
        return blur_pool(x.float(), kernel, stride, padding, start, size).round().to(x.dtype)
    lead = x.shape[: -axes - 1]
    if len(lead) > 1:
        out = blur_pool(x.flatten(0, len(lead) - 1), kernel, stride, padding, start, size)
        return out.reshape(*lead, *out.shape[1:])

    def blur(part: Tensor) -> Tensor:
        if runs_now(part) and part.dtype.itemsize == 2:  # a depthwise convolution in 16 bits is many times slower
            return blur(part.float()).to(part.dtype)
        part = pad(part, borders, padding)
        if _fuses(part, kernel):
            return _sum_of_slices(part, kernel.to(part), stride)
        channels = part.shape[-axes - 1]
        weight = kernel.to(part).expand(channels, 1, *kernel.shape)
        return _CONV[axes](part, weight, stride=tuple(stride), groups=channels)

    with _own_type(x):
        return in_parts(blur, x)


def _fuses(x: Tensor, kernel: Tensor) -> bool:
    """Whether a compiler makes one loop of the padding and the sum over the taps; a convolution it calls as it is."""
    compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    return compiling and x.device.type == "cpu" and kernel.dim() <= 2 and not needs_gradient(x)


def _sum_of_slices(x: Tensor, kernel: Tensor, stride: Sequence[int]) -> Tensor:
    """The convolution of every channel with ``kernel``, as the sum of its taps times what they meet."""
    axes = kernel.dim()
    counts = [(x.shape[axis - axes] - kernel.shape[axis]) // stride[axis] + 1 for axis in range(axes)]
    total: Tensor | None = None
    for place in itertools.product(*map(range, kernel.shape)):
        spans: list[Any] = [
            slice(i, i + (n - 1) * step + 1, step) for i, n, step in zip(place, counts, stride, strict=True)
        ]
        term = x[(..., *spans)] * kernel[place]
        total = term if total is None else total + term
    assert total is not None
    return total


def blur_upsample(x: Tensor, kernel: Tensor, rate: Sequence[int], padding: str = "reflect") -> Tensor:
    """Insert ``rate - 1`` zeros after every sample and low-pass with ``kernel`` times the product of the rates.

    The samples lie where those of nearest-neighbour upsampling lie, ⌊(m+s-2)/2⌋ samples of border before, of the map
    continued at its own resolution: at rate 2 the border of `blur_pool` mirrored (Zhang, ICML 2019). At
    every rate ``rect2`` is nearest-neighbour upsampling. Where m + s is odd they lie half a sample later.

    Shape:
        (*, C, N₁, …) → (*, C, N₁ · rate₁, …), as many spatial axes as ``kernel`` has.

    >>> blur_upsample(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([0.25, 0.5, 0.25]), (2,), "replicate")
    tensor([[[1.0000, 1.5000, 2.0000, 3.0000, 4.0000, 4.0000]]])
    """
    if has_torch_function_unary(x):
        return handle_torch_function(blur_upsample, (x,), x, kernel, rate, padding=padding)
    axes = kernel.dim()
    borders, crop = [], []
    for axis in range(axes):
        taps, step = _length(kernel, axis), rate[axis]
        before = (taps + step - 2) // 2
        reach = -(-before // step)
        borders.append((reach, -(-taps // step)))
        crop.append(reach * step + taps - 1 - before)
    lengths = [x.shape[axis - axes] * rate[axis] for axis in range(axes)]
    x = pad(x, borders, padding)
    weight = (kernel.flip(tuple(range(axes))) * math.prod(rate)).to(x)
    channels = x.shape[-axes - 1]
    with _own_type(x):
        x = _TRANSPOSED[axes](x, weight.expand(channels, 1, *kernel.shape), stride=tuple(rate), groups=channels)
    for axis in range(axes):
        x = x.narrow(axis - axes, crop[axis], lengths[axis])
    return x


def _own_type(x: Tensor) -> AbstractContextManager[Any]:
    """Keep the type of ``x``, which autocast would lower where the operation blurred does not."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


def pad(x: Tensor, borders: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """Continue ``x`` past its borders by (before, after) samples on each of the last axes; negative crops.

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


def _feasible(mode: str, reach: int, x: Tensor, dim: int) -> str:
    """The mode, or what stands in for it where the map is too short."""
    if mode == "zero":
        return "constant"
    if reach <= 0 or mode == "replicate":
        return mode
    length = _length(x, dim)
    if mode == "reflect" and reach >= length:
        return "replicate"
    if mode == "circular" and reach > length:
        return "wrap"
    return mode


def _length(x: Tensor, dim: int) -> int:
    """A size that may be compared. A traced graph holds one size, of which the tracer would warn."""
    if torch._C._get_tracing_state() is None:
        return x.shape[dim]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(x.shape[dim])


def _wrap(x: Tensor, dim: int, border: tuple[int, int]) -> Tensor:
    """Circular padding by more than the map's own length, which ``F.pad`` refuses."""
    length = x.shape[dim]
    return x.index_select(dim, torch.arange(-border[0], length + border[1], device=x.device) % length)
