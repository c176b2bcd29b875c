"""Average pooling.

    AvgPool_{k,s}  =  Subsample_s ∘ Box_k   →   Subsample_s ∘ Blur_m ∘ Box_k      (average="keep")
                                            →   Subsample_s ∘ Blur_m              (average="replace")

The moving average commutes with shifts. It is itself a low-pass filter, but its side lobes alias. With ``keep`` it is
blurred like every other operation, at the phase that the network was trained with. With ``replace`` the blur takes its
place, as in the paper.

Shapes: unchanged, (N, C, ⌈L/s⌉ …) with L the dense map. The divisors are the original's: they follow
``count_include_pad`` and ``divisor_override``, and do not count samples beyond the padding under ``ceil_mode``.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3 (AvgPool → BlurPool).
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aliasfix.layers.averages import Fused, fuses, taps
from aliasfix.layers.batches import materialize
from aliasfix.layers.blur import BlurPool
from aliasfix.layers.functional import blur_pool
from aliasfix.planning.rule import Arguments, Case, Function, Pool, Site, per_axis, spatial_axes, wrap_input
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

from .max_pool import overhang

_PARAMETERS = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")


class AveragePool(Pool):
    """``avg_pool1d/2d/3d``, as modules or functions."""

    signatures = {"avg_pool1d": _PARAMETERS} | {f"avg_pool{n}d": (*_PARAMETERS, "divisor_override") for n in (2, 3)}
    modules = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    together = "fused"

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a pool of stride above 1; one that returns a single sample is kept."""
        kernel, stride, _ = self.window(call.name, call.arguments)
        if max(stride) == 1:
            return None
        out = (call.shape or ())[-len(kernel) :]
        reason = None
        if out and max(out) == 1:
            reason = "It averages the whole map to one sample: there is nothing left to subsample."
        return Site(stride, kernel, reason)

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Compute the average at ``stride``, with the original's divisors."""
        x = bound["input"]
        axes = spatial_axes(op)
        kernel, strides, padding = self.window(op, bound)
        options = {k: bound[k] for k in ("count_include_pad", "divisor_override") if k in bound}
        lengths = [x.shape[axis - axes] for axis in range(axes)]
        extra = [
            overhang(*window) if bound.get("ceil_mode") else 0
            for window in zip(lengths, kernel, strides, padding, strict=True)
        ]
        if wrap:
            x, padding, extra = wrap_input(x, padding, kernel, strides, extra), (0,) * axes, [0] * axes
        if not any(extra):
            return func(x, kernel, stride=stride, padding=padding, **options)
        borders = [n for a in reversed(range(axes)) for n in (padding[a], padding[a] + extra[a])]
        total = func(F.pad(x, borders), kernel, stride=stride) * math.prod(kernel)
        if options.get("divisor_override"):
            return total / options["divisor_override"]
        for axis in range(axes):
            size = x.shape[axis - axes]
            counted = _counts(size, kernel[axis], padding[axis], extra[axis], options.get("count_include_pad", True))
            counted = counted[:: stride[axis]].to(total)
            total = total / counted.reshape(-1, *[1] * (axes - 1 - axis))
        return total

    def blurred(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """Compute the blurred moving average, by one matrix per axis if that is faster."""
        x, axes, wrap = bound["input"], spatial_axes(op), blur.padding == "circular"
        options = {name: value for name, value in bound.items() if name != "input"}  # the closure must not hold it

        def steps(x: Tensor) -> Any:
            return blur(materialize(self.dense(op, func, {"input": x, **options}, (1,) * axes, wrap)))

        own = type(blur) is BlurPool and not blur._forward_hooks and not blur._forward_pre_hooks
        filters = taps(blur.kernel) if own and fuses(x, axes) else None
        if filters is None:
            return steps(x)
        (kernel, strides, padding), divisor = self.window(op, bound), bound.get("divisor_override")
        how = bool(bound.get("ceil_mode")), bool(bound.get("count_include_pad", True)), bool(divisor)
        windows = zip(x.shape[2:], kernel, strides, padding, filters, strict=True)
        first, *others = [_matrix(*window, *how, blur.padding) for window in windows]
        return Fused(steps, (first / divisor if divisor else first, *others))(x)

    def replaces(self, op: str, bound: dict[str, Any], recipe: Recipe) -> bool:
        """Whether the recipe replaces averages."""
        return recipe.average == "replace"

    def replacement_shift(self, bound: dict[str, Any], taps: tuple[int, ...]) -> tuple[float, ...]:
        """The blur lies on the left of the two central samples of an even window."""
        kernel = per_axis(bound["kernel_size"], len(taps))
        pairs = zip(super().replacement_shift(bound, taps), kernel, strict=True)
        return tuple(shift - (0.0 if k % 2 else 0.5) for shift, k in pairs)

    def replace(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """Blur at the centres of the windows (the left one of two), with the output size of the pool."""
        x = bound["input"]
        axes = len(blur.stride)
        kernel, strides, padding = self.window(op, bound)
        start, size = [], []
        for axis in range(axes):
            window = (x.shape[axis - axes], kernel[axis], strides[axis], padding[axis])
            extra = overhang(*window) if bound.get("ceil_mode") else 0
            start.append((kernel[axis] - 1) // 2 - padding[axis])
            size.append((window[0] + 2 * padding[axis] + extra - kernel[axis]) // strides[axis] + 1)
        return blur(x, start=start, size=size)

    cases = (
        Case("module", lambda: nn.AvgPool2d(2)),
        Case("padded", lambda: nn.AvgPool2d(3, 2, 1)),
        Case("padding_not_counted", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        Case("ceil_mode", lambda: nn.AvgPool2d(2, 2, ceil_mode=True), (2, 4, 15, 17)),
        Case("ceil_mode_padded", lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 4, 16, 17)),
        Case(
            "ceil_mode_not_counted",
            lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            (2, 4, 16, 17),
        ),
        Case("divisor_override", lambda: nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5)),
        Case("in_1d", lambda: nn.AvgPool1d(3, 2, 1), (2, 4, 17)),
        Case("in_3d", lambda: nn.AvgPool3d(2, ceil_mode=True), (2, 4, 7, 9, 10)),
        Case("whole_map", lambda: nn.AvgPool2d(8), (2, 4, 8, 8), kept="whole map"),
    )


@functools.lru_cache(maxsize=64)
def _matrix(
    length: int,
    kernel: int,
    stride: int,
    padding: int,
    filter: tuple[float, ...],
    ceil_mode: bool,
    include_pad: bool,
    total: bool,
    border: str,
) -> Tensor:
    """Return the matrix (n, N) of the average, or the sum if ``total``, and its blur along an axis."""
    with torch.inference_mode(False), torch.no_grad():
        bound = {
            "input": torch.eye(length, dtype=torch.float64, device="cpu")[:, None, None],
            **{"kernel_size": (1, kernel), "stride": (1, stride), "padding": (0, padding)},
            **{"ceil_mode": ceil_mode, "count_include_pad": include_pad, "divisor_override": 1 if total else None},
        }
        dense = AveragePool().dense("avg_pool2d", F.avg_pool2d, bound, (1, 1), border == "circular")
        row = torch.tensor([filter], dtype=torch.float64, device="cpu")
        return blur_pool(dense, row, (1, stride), border)[:, 0, 0].T.contiguous()


def _counts(length: int, kernel: int, padding: int, extra: int, include_pad: bool) -> Tensor:
    """Return the divisor of each dense window along one axis: padding may count, the overhang never does."""
    counted = torch.ones(length + 2 * padding + extra)
    if not include_pad:
        counted[:padding] = 0
        counted[padding + length :] = 0
    counted[length + 2 * padding :] = 0
    return counted.unfold(0, kernel, 1).sum(-1)
