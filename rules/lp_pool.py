"""Power-average pooling.

    LPPool_{k,s}  =  Subsample_s ∘ LP_k   →   Subsample_s ∘ Blur_m ∘ LP_k

LP_k at stride 1 is the p-norm of a window, and commutes with shifts; keeping every s-th sample aliases. The norm is
itself a nonlinearity, so the blur follows directly.

Shapes: unchanged, (N, C, ⌈L/s⌉ …) with L the dense map.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, MaxBlurPool, with the norm
instead of the maximum.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from aliasfix.planning.rule import Arguments, Case, Function, Pool, Site, spatial_axes
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

from .average_pool import AveragePool

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class LPPool(Pool):
    """``lp_pool1d/2d/3d``, as modules or functions."""

    signatures = {f"lp_pool{n}d": ("input", "norm_type", "kernel_size", "stride", "ceil_mode") for n in (1, 2, 3)}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a pool of stride above 1."""
        kernel, stride, _ = self.window(call.name, call.arguments)
        return None if max(stride) == 1 else Site(stride, kernel)

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Compute the norm at stride 1 from the average of the powers, as torch does."""
        axes, (kernel, _, _) = spatial_axes(op), self.window(op, bound)
        power = float(bound["norm_type"])
        window: dict[str, Any] = {k: bound[k] for k in ("kernel_size", "stride", "ceil_mode") if k in bound}
        powers = {"input": bound["input"].pow(power), **window}
        mean = AveragePool().dense(f"avg_pool{axes}d", _AVERAGE[axes], powers, stride, wrap)
        return (torch.sign(mean) * F.relu(mean.abs())).mul(math.prod(kernel)).pow(1 / power)

    cases = (
        Case("module", lambda: nn.LPPool2d(2, 2)),
        Case("ceil_mode", lambda: nn.LPPool2d(2, 3, 2, ceil_mode=True)),
        Case("in_1d", lambda: nn.LPPool1d(2, 3, 2), (2, 4, 17)),
    )
