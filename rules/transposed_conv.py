"""Transposed convolution.

    ConvTranspose_{k,s}  =  Conv_k ∘ Zeros_s   →   Blur_m ∘ Conv_k ∘ Zeros_s

Inserting zeros copies the spectrum s times. The kernel removes the copies only as well as it was trained to, and if s
does not divide k it leaves a checkerboard. The operation consists of zero insertion and a convolution, so the low-pass
filter of the paper is a blur of gain 1 after it, at the high resolution.

Shapes: unchanged, whatever ``output_padding``.

Weights: the convolution's own, untouched.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, image translation.
"""

from typing import Any

from torch import nn

from aliasfix.planning.rule import Arguments, Case, Function, Rule, Site, per_axis, spatial_axes, wrap_input
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_DEFAULTS = {"padding": 0, "output_padding": 0, "dilation": 1}


class TransposedConv(Rule):
    """``conv_transpose1d/2d/3d``, as modules or functions."""

    signatures = {f"conv_transpose{n}d": _PARAMETERS for n in (1, 2, 3)}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a transposed convolution of stride above 1."""
        stride = per_axis(call.arguments.get("stride", 1), spatial_axes(call.name))
        return None if max(stride) == 1 else Site(stride, enlarges=True)

    def pads(self, bound: dict[str, Any]) -> bool:
        """Always: border samples have no neighbours outside the map."""
        return True

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Compute the same operation on an input that is padded circularly, and crop the result."""
        axes = spatial_axes(op)
        x, weight = bound["input"], bound["weight"]
        options = {name: per_axis(bound.get(name, default), axes) for name, default in _DEFAULTS.items()}
        span = [d * (k - 1) for d, k in zip(options["dilation"], weight.shape[-axes:], strict=True)]
        reach = tuple(-(-s // step) for s, step in zip(span, stride, strict=True))
        others = {name: bound[name] for name in ("bias", "groups") if name in bound}
        whole = func(wrap_input(x, reach), weight, stride=stride, dilation=options["dilation"], **others)
        for axis in range(axes):
            before, extra = options["padding"][axis], options["output_padding"][axis]
            length = (x.shape[axis - axes] - 1) * stride[axis] - 2 * before + span[axis] + 1 + extra
            whole = whole.narrow(axis - axes, before + reach[axis] * stride[axis], length)
        return whole

    cases = (
        Case("kernel_4", lambda: nn.ConvTranspose2d(4, 3, 4, 2, 1)),
        Case("output_padding", lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.ReLU())),
        Case("stride_3", lambda: nn.ConvTranspose2d(4, 3, 3, 3)),
        Case("in_1d", lambda: nn.ConvTranspose1d(4, 3, 4, 2, 1), (2, 4, 9)),
        Case("in_3d", lambda: nn.ConvTranspose3d(4, 3, 2, 2), (2, 4, 3, 4, 5)),
    )
