"""Max unpooling.

    Unpool_s   →   Blur_m ∘ Unpool_s

Unpooling puts each sample where the maximum was, and zeros elsewhere: it inserts zeros, at positions that depend on
the input. A blur of gain 1 at the high resolution follows.

Shapes: unchanged.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, image translation, applied to the
unpooling of Zeiler & Fergus, ECCV 2014.
"""

from typing import Any

import torch
from torch import nn

from aliasfix.planning.rule import Case, Rule, Site, per_axis, spatial_axes
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace


class MaxUnpool(Rule):
    """``max_unpool1d/2d/3d``, as modules or functions."""

    signatures = {
        f"max_unpool{n}d": ("input", "indices", "kernel_size", "stride", "padding", "output_size") for n in (1, 2, 3)
    }

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find an unpooling of stride above 1."""
        axes = spatial_axes(call.name)
        stride = per_axis(call.arguments.get("stride") or call.arguments["kernel_size"], axes)
        return None if max(stride) == 1 else Site(stride, enlarges=True)

    cases = (Case("paired_with_max_pool", lambda: _Autoencoder()),)


class _Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x: torch.Tensor) -> Any:
        """The unpooling uses the indices of the pool."""
        values, indices = self.pool(x)
        return self.unpool(values, indices, output_size=x.shape)
