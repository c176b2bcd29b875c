"""Max pooling.

    MaxPool_{k,s}  =  Subsample_s ∘ Max_k   →   Subsample_s ∘ Blur_m ∘ Max_k     (pool="keep")
                                            →   Subsample_s ∘ Blur_m ∘ Box_k     (pool="average")

Max_k at stride 1 commutes with shifts; keeping every s-th maximum aliases, because the maxima have frequencies up to
the Nyquist frequency of the input. The maximum is itself a nonlinearity, so the blur follows directly. No low-pass
makes it alias-free; the average of the window is linear.

Shapes: unchanged, (N, C, ⌈L/s⌉ …) with L the dense map. Under ``ceil_mode`` the input is padded with −∞ on the right,
as far as the strided windows reach.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3 (MaxPool →
MaxBlurPool).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aliasfix.layers.batches import in_parts, layout, materialize, needs_gradient, runs_now
from aliasfix.layers.blur import BlurPool
from aliasfix.layers.dense_max import dense_max
from aliasfix.planning.rule import Arguments, Case, Function, Pool, Site, per_axis, spatial_axes, wrap_input
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

_PARAMETERS = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


class MaxPool(Pool):
    """``max_pool1d/2d/3d``, as modules or functions."""

    signatures = {f"max_pool{n}d": _PARAMETERS for n in (1, 2, 3)} | {
        f"max_pool{n}d_with_indices": _PARAMETERS for n in (1, 2, 3)
    }
    modules = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
    together = "dense"

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a pool of stride above 1."""
        kernel, stride, _ = self.window(call.name, call.arguments)
        if max(stride) == 1:
            return None
        dilation = per_axis(call.arguments.get("dilation", 1), len(kernel))
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        return Site(stride, reach)

    def blurred(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """Compute the blurred dense maximum; the indices for unpooling are those of the strided pool."""
        ones = (1,) * spatial_axes(op)
        wrap = blur.padding == "circular"
        if _with_indices(op):
            return blur(self.dense(op, func, bound, ones, wrap)[0]), func(**bound)[1]
        return in_parts(lambda part: self.dense(op, func, {**bound, "input": part}, ones, wrap), blur, bound["input"])

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Compute the pool at ``stride``, extended to the right as far as ``ceil_mode`` reaches."""
        x: Tensor = bound["input"]
        axes = spatial_axes(op)
        kernel, strides, padding = self.window(op, bound)
        dilation = per_axis(bound.get("dilation", 1), axes)
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        extra = [0] * axes
        if bound.get("ceil_mode", False):
            windows = zip(x.shape[-axes:], spans, strides, padding, strict=True)
            extra = [overhang(*window) for window in windows]
        if wrap:
            x, padding, extra = wrap_input(x, padding, spans, strides, extra), (0,) * axes, [0] * axes
        slow = layout(x) == torch.contiguous_format or not needs_gradient(x)  # torch's pooling, or its gradient
        if slow and max(stride) == 1 and runs_now(x) and x.is_floating_point() and not _with_indices(op):
            return dense_max(x, kernel, [(p, p + e) for p, e in zip(padding, extra, strict=True)], dilation)
        if any(extra):
            x = F.pad(x, [n for amount in reversed(extra) for n in (0, amount)], value=-torch.inf)
        if _with_indices(op):
            values, indices = func(x, kernel, stride=stride, padding=padding, dilation=dilation, return_indices=True)
            return values, _unwrapped(indices, x, bound["input"], self.window(op, bound)[2]) if wrap else indices
        return materialize(func(x, kernel, stride=stride, padding=padding, dilation=dilation))

    def replaces(self, op: str, bound: dict[str, Any], recipe: Recipe) -> bool:
        """Whether the recipe takes averages; those of windows with gaps and of indices are none."""
        return recipe.pool == "average" and averages(op, bound)

    def replace(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """Average the windows densely, and blur."""
        return blur(average(op, bound, blur.padding == "circular"))

    cases = (
        Case("module", lambda: nn.MaxPool2d(3, 2, 1)),
        Case("kernel_of_stride", lambda: nn.MaxPool2d(2)),
        Case("ceil_mode", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (2, 4, 16, 17)),
        Case("ceil_mode_last_window_dropped", lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True), (2, 4, 16, 17)),
        Case("dilated", lambda: nn.MaxPool2d(3, 2, 1, dilation=2)),
        Case("one_axis", lambda: nn.MaxPool2d((2, 1), (2, 1))),
        Case("stride_3", lambda: nn.MaxPool2d(3, 3)),
        Case("in_1d", lambda: nn.MaxPool1d(3, 2, 1), (2, 4, 17)),
        Case("in_3d", lambda: nn.MaxPool3d(3, 2, 1), (2, 4, 8, 9, 10)),
        Case("with_indices", lambda: nn.MaxPool2d(2, return_indices=True)),
        Case("with_indices_ceil_mode", lambda: nn.MaxPool2d(3, 2, ceil_mode=True, return_indices=True), (2, 4, 16, 17)),
    )


def _unwrapped(indices: Tensor, wrapped: Tensor, x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Return the indices of samples of ``x``, for those of ``x`` padded circularly."""
    flat, unit, rest = torch.zeros_like(indices), 1, indices
    for axis in range(-1, -len(padding) - 1, -1):
        place = (rest % wrapped.shape[axis] - padding[axis]) % x.shape[axis]
        flat, unit, rest = flat + place * unit, unit * x.shape[axis], rest // wrapped.shape[axis]
    return flat


def _with_indices(op: str) -> bool:
    return op in ("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")


def overhang(length: int, span: int, stride: int, padding: int) -> int:
    """Return how many samples ``ceil_mode`` reaches past the padded input along one axis.

    In torch, the last window must start inside the input or its left padding.
    """
    count = -(-(length + 2 * padding - span) // stride) + 1
    if (count - 1) * stride >= length + padding:
        count -= 1
    return max(0, (count - 1) * stride + span - length - 2 * padding)


def averages(op: str, bound: Arguments) -> bool:
    """Return whether a max pool's windows can be averaged: they have no gaps, and no indices are asked for."""
    dilation = bound.get("dilation", 1)
    return not _with_indices(op) and max(per_axis(dilation, spatial_axes(op))) == 1


def average(op: str, bound: Arguments, wrap: bool) -> Tensor:
    """Return the averages of a max pool's windows at stride 1; padding does not count, as it does not for a maximum."""
    from .average_pool import AveragePool

    func = getattr(F, op.replace("max", "avg"))
    own = {name: value for name, value in bound.items() if name not in ("dilation", "return_indices")}
    own["count_include_pad"] = False
    averaged: Tensor = AveragePool().dense(func.__name__, func, own, (1,) * spatial_axes(op), wrap)
    return averaged
