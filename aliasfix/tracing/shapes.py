"""Infer the results of common functions from the shapes of their arguments.

On the meta device PyTorch runs many of them as chains of decompositions in Python, which takes most of the time of a
trace. Unusual arguments, and arguments that would fail, are left to PyTorch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..planning.rule import per_axis
from ..planning.tail import kind

LARGE = 2**20  # values of a map from which on random values are not filled in: models search smaller maps


@dataclass(frozen=True)
class Inferred:
    """The result of a function on the meta device, and the multiply-adds it makes on other devices."""

    result: Tensor | tuple[Tensor, ...]
    multiply_adds: int = 0


def infer(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inferred | None:
    """Infer the result of ``func(*args, **kwargs)``; None if PyTorch has to run it.

    >>> infer(F.linear, (torch.ones(2, 3, device="meta"), torch.ones(5, 3, device="meta")), {})
    Inferred(result=tensor(..., device='meta', size=(2, 5)), multiply_adds=30)
    """
    if func not in _INFERRED:
        return None
    try:
        return _INFERRED[func](*args, **kwargs)
    except TypeError:  # arguments that PyTorch refuses, or that are unknown here
        return None


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Inferred | None:
    given = [each for each in (running_mean, running_var, weight, bias) if each is not None]
    fits = input.dim() > 1 and input.is_floating_point() and all(each.shape == input.shape[1:2] for each in given)
    # one value per channel has no variance
    known = input.numel() > input.shape[1] if training else running_mean is not None and running_var is not None
    both = (running_mean is None) == (running_var is None)
    return Inferred(torch.empty_like(input)) if fits and both and known else None


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Inferred | None:
    shape = tuple(normalized_shape)
    given = [each for each in (weight, bias) if each is not None]
    fits = shape and input.shape[max(0, input.dim() - len(shape)) :] == shape and _alike(input, *given)
    fits = fits and input.is_floating_point() and all(each.shape == shape for each in given)
    return Inferred(input.new_empty(input.shape)) if fits else None


def _gelu(input: Tensor, approximate: str = "none") -> Inferred | None:
    known = input.is_floating_point() and approximate in ("none", "tanh")
    return Inferred(torch.empty_like(input)) if known else None


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Inferred | None:
    fits = input.dim() and weight.dim() == 2 and input.shape[-1] == weight.shape[1] and _alike(input, weight, bias)
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    result = input.new_empty(*input.shape[:-1], weight.shape[0])
    return Inferred(result, result.numel() * weight.shape[1])


def _convolution(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Inferred | None:
    plain = input.dim() == weight.dim() == axes + 2 and input.is_contiguous() and input.is_floating_point()
    geometry = (stride, padding, dilation)
    if not (plain and _alike(input, weight, bias) and input.numel() and all(_counts(each, axes) for each in geometry)):
        return None
    steps, pads, dilations = (per_axis(each, axes) for each in geometry)
    spans = zip(input.shape[2:], weight.shape[2:], steps, pads, dilations, strict=True)
    lengths = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spans]
    filters, fits = weight.shape[0], input.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not fits or min(lengths) < 1 or (bias is not None and bias.shape != (filters,)):
        return None
    result = input.new_empty(len(input), filters, *lengths)
    return Inferred(result, result.numel() * math.prod(weight.shape[1:]))


def _counts(value: Any, axes: int) -> bool:
    """Whether a stride, padding or dilation is one integer, or one per axis."""
    if isinstance(value, tuple | list):
        return len(value) in (1, axes) and all(type(each) is int for each in value)
    return type(value) is int


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Inferred | None:
    fits = query.dim() == 4 and key.shape[:-2] == value.shape[:-2] == query.shape[:-2] and attn_mask is None
    fits = fits and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2] and _alike(query, key, value)
    if not fits or not query.is_floating_point():
        return None
    result = query.new_empty(*query.shape[:-1], value.shape[-1])
    return Inferred(result, math.prod(query.shape[:-1]) * key.shape[-2] * (key.shape[-1] + value.shape[-1]))


def _lstm(input: Tensor, hx: Any, params: Any, *options: Any) -> Inferred | None:
    plain = isinstance(hx, tuple | list) and len(hx) == 2 and input.dim() == 3 and len(options) == 6  # not packed
    if not plain or not input.numel() or not _alike(input, *hx, *params):
        return None
    biased, layers, _, _, both, batch_first = options
    directions = 2 if both else 1
    batch = input.shape[0] if batch_first else input.shape[1]
    sizes = {layers * directions * (2 + 2 * biased + projects) for projects in (0, 1)}
    if len(params) not in sizes or params[0].shape[1] != input.shape[2]:
        return None
    if any(h.shape[:2] != (layers * directions, batch) for h in hx):
        return None
    steps = math.prod(input.shape[:2])
    result = input.new_empty(steps // batch, batch, directions * hx[0].shape[2])
    adds = steps * sum(weight.numel() for weight in params if weight.dim() == 2)
    return Inferred((result.transpose(0, 1) if batch_first else result, *(torch.empty_like(h) for h in hx)), adds)


def _alike(input: Tensor, *others: Tensor | None) -> bool:
    return all(other is None or (other.dtype, other.device) == (input.dtype, input.device) for other in others)


def infer_large(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inferred | None:
    """Infer the result of a relu, addition or multiplication of a large map; None for other operations.

    The values of the result are undefined: writing memory is what takes the time. For an operation in place the
    result is the map itself, marked as changed.

    >>> infer_large(torch.relu, (torch.ones(LARGE),), {}).result.shape == (LARGE,)
    True
    """
    op = getattr(func, "__name__", "")
    maps = [each for each in args if isinstance(each, Tensor)]
    if kind(op) not in ("relu", "add", "mul") or kwargs.keys() - {"inplace"} or not maps or args[0] is not maps[0]:
        return None
    first = maps[0]
    fits = first.numel() >= LARGE and first.is_floating_point() and _alike(*maps)
    if not fits or not all(_broadcasts(each, first) for each in maps):
        return None
    if kwargs.get("inplace") or op.startswith("__i") or op in ("relu_", "add_", "mul_"):
        first.as_strided((0,), (1,)).zero_()
        return Inferred(first)
    return Inferred(torch.empty_like(first))


def fill(result: Tensor, values: Tensor) -> None:
    """Fill a tensor that is dense in memory with ``values``, repeated."""
    flat = result.as_strided((result.numel(),), (1,))
    rest = flat.numel() % len(values)
    flat[rest:].view(-1, len(values)).copy_(values)
    flat[:rest].copy_(values[:rest])


def _broadcasts(value: Tensor, to: Tensor) -> bool:
    """Whether ``value`` broadcasts to the shape of ``to``."""
    sides = zip(reversed(value.shape), reversed(to.shape), strict=False)
    return value.dim() <= to.dim() and all(a in (1, b) for a, b in sides)


_INFERRED: dict[Callable[..., Any], Callable[..., Inferred | None]] = {
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.gelu: _gelu,
    F.linear: _linear,
    F.conv1d: partial(_convolution, 1),
    F.conv2d: partial(_convolution, 2),
    F.conv3d: partial(_convolution, 3),
    F.scaled_dot_product_attention: _attention,
    torch.lstm: _lstm,
}
