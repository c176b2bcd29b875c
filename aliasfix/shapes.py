"""What the commonest functions return on the meta device, told from their shapes.

PyTorch runs many of them there as chains of decompositions in Python, which is most of what tracing a model takes. What
is unusual, or would fail, goes PyTorch's way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .rule import per_axis


@dataclass(frozen=True)
class Told:
    """What a function returns on the meta device, and the multiply-adds it makes elsewhere."""

    result: Tensor | tuple[Tensor, ...]
    multiply_adds: int = 0


def tell(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Told | None:
    """What ``func(*args, **kwargs)`` of meta tensors gives, None where PyTorch has to be asked.

    >>> tell(F.linear, (torch.ones(2, 3, device="meta"), torch.ones(5, 3, device="meta")), {})
    Told(result=tensor(..., device='meta', size=(2, 5)), multiply_adds=30)
    """
    return _TOLD[func](*args, **kwargs) if func in _TOLD else None


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> Told | None:
    given = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    fits = input.dim() > 1 and all(each.shape == input.shape[1:2] for each in given)
    return Told(torch.empty_like(input)) if fits and (training or running_mean is not None) else None


def _layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, *_: Any, **__: Any) -> Told | None:
    shape = tuple(normalized_shape)
    fits = input.shape[max(0, input.dim() - len(shape)) :] == shape and _alike(input, weight)
    return Told(torch.empty_like(input)) if fits and (weight is None or weight.shape == shape) else None


def _gelu(input: Tensor, *_: Any, **__: Any) -> Told | None:
    return Told(torch.empty_like(input)) if input.is_floating_point() else None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Told | None:
    fits = input.dim() and weight.dim() == 2 and input.shape[-1] == weight.shape[1] and _alike(input, weight, bias)
    if not fits:
        return None
    result = input.new_empty(*input.shape[:-1], weight.shape[0])
    return Told(result, result.numel() * weight.shape[1])


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Told | None:
    axes = weight.dim() - 2
    plain = input.dim() == axes + 2 and input.is_contiguous() and not isinstance(padding, str)
    if not plain or not _alike(input, weight, bias):
        return None
    kernel = weight.shape[2:]
    geometry = [per_axis(value, axes) for value in (stride, padding, dilation)]
    spans = zip(input.shape[2:], kernel, *geometry, strict=True)
    lengths = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spans]
    filters, fits = weight.shape[0], input.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not fits or min(lengths) < 1 or (bias is not None and bias.shape != (filters,)):
        return None
    result = input.new_empty(len(input), filters, *lengths)
    return Told(result, result.numel() * math.prod(weight.shape[1:]))


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *_: Any, **__: Any) -> Told | None:
    fits = query.dim() == 4 and key.shape[:-2] == value.shape[:-2] == query.shape[:-2] and attn_mask is None
    fits = fits and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2] and _alike(query, key, value)
    if not fits:
        return None
    result = query.new_empty(*query.shape[:-1], value.shape[-1])
    return Told(result, math.prod(query.shape[:-1]) * key.shape[-2] * (key.shape[-1] + value.shape[-1]))


def _lstm(input: Tensor, hx: Any, params: Any, *options: Any) -> Told | None:
    plain = isinstance(hx, tuple | list) and input.dim() == 3 and len(options) == 6  # else a packed sequence
    if not plain or not _alike(input, *hx, *params):
        return None
    layers, both, batch_first = options[1], options[4], options[5]
    batch, features = (input.shape[0] if batch_first else input.shape[1]), input.shape[2]
    directions = 2 if both else 1
    if params[0].shape[1] != features or any(h.shape[:2] != (layers * directions, batch) for h in hx):
        return None
    result = input.new_empty(*input.shape[:2], directions * hx[0].shape[2])
    steps = math.prod(input.shape[:2])
    adds = steps * sum(weight.numel() for weight in params if weight.dim() == 2)
    return Told((result, *(torch.empty_like(h) for h in hx)), adds)


def _alike(input: Tensor, *others: Tensor | None) -> bool:
    return all(other is None or (other.dtype, other.device) == (input.dtype, input.device) for other in others)


_TOLD: dict[Callable[..., Any], Callable[..., Told | None]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.gelu: _gelu,
    F.linear: _linear,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.scaled_dot_product_attention: _attention,
    torch.lstm: _lstm,
}
