"""Circular borders.

    op ∘ Pad_zero   →   op ∘ Pad_circular

An operation commutes with shifts only where its windows see the same around every position. A border that is continued
by zeros, by a reflection or by copies breaks that; a circular one does not. ``padding="circular"`` wraps the borders of
every operation that pads: those that sample by their own rules, all others by this one.

Shapes: unchanged.

Weights: untouched.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 4.1, on CIFAR-10; Chaman &
Dokmanić, "Truly Shift-Invariant Convolutional Neural Networks", CVPR 2021, section 3.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from aliasfix.layers.padding import pad
from aliasfix.planning.rule import Arguments, Case, Convolved, Function, Rule, Site, per_axis, spatial_axes
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

from .average_pool import AveragePool
from .max_pool import MaxPool
from .strided_conv import StridedConv
from .transposed_conv import TransposedConv

_OTHERS: tuple[type[Rule], ...] = (AveragePool, MaxPool, StridedConv, TransposedConv)


class Border(Rule):
    """Convolutions and pools of stride 1 that pad, and ``pad`` along spatial axes."""

    purpose = "borders"
    signatures = {op: names for rule in _OTHERS for op, names in rule.signatures.items()} | {
        "pad": ("input", "pad", "mode", "value")
    }

    options = {"padding": "circular"}

    def acts(self, recipe: Recipe) -> bool:
        """Whether the recipe wraps borders."""
        return recipe.padding == "circular"

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find an operation of stride 1 that continues its input past the border, other than circularly."""
        bound = call.arguments
        if not call.variable or call.shape is None:
            return None
        if call.name == "pad":
            widths = list(bound["pad"])
            spatial = widths[: 2 * (len(call.sizes) - 2)]
            wraps = bound.get("mode", "constant") == "circular"
            return None if wraps or not any(width > 0 for width in spatial) else Site(())
        axes = spatial_axes(call.name)
        stride = bound.get("stride") or (1 if "weight" in bound else bound["kernel_size"])
        if max(per_axis(stride, axes)) > 1 or not self.pads(bound):
            return None
        return Site(())

    def substitute(self, op: str, func: Function, bound: Arguments) -> Any:
        """Wrap the input around, then call the operation without padding."""
        if op == "pad":
            return _wrapped(bound["input"], bound["pad"])
        axes = spatial_axes(op)
        if op.startswith("conv") and "transpose" not in op:
            borders = _borders(bound, axes)
            return func(**{**bound, "input": pad(bound["input"], borders, "circular"), "padding": 0})
        rule = next(rule for rule in _OTHERS if op in rule.signatures)
        return rule().dense(op, func, bound, (1,) * axes, True)

    cases = (
        Case("convolution", lambda: nn.Conv2d(4, 6, 3, padding=1)),
        Case("same", lambda: nn.Conv2d(4, 6, 4, padding="same")),
        Case("dilated", lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2)),
        Case("reflected", lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")),
        Case("max_pool", lambda: nn.MaxPool2d(3, 1, 1)),
        Case("average_pool", lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        Case("transposed", lambda: nn.ConvTranspose2d(4, 6, 3, 1, 1)),
        Case("pad", lambda: Convolved(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1))),
        Case("in_1d", lambda: nn.Conv1d(4, 6, 5, padding=2), (2, 4, 17)),
        Case("in_3d", lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 8, 9, 10)),
    )


def _borders(bound: Arguments, axes: int) -> list[tuple[int, int]]:
    """Return the padding (before, after) of a convolution along each axis."""
    if bound["padding"] != "same":
        return [(n, n) for n in per_axis(bound["padding"], axes)]
    dilation, size = per_axis(bound.get("dilation", 1), axes), bound["weight"].shape[-axes:]
    spans = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    return [(span // 2, span - span // 2) for span in spans]


def _wrapped(x: Tensor, widths: Any) -> Tensor:
    """Pad circularly along all axes behind the second, by zeros along the first two."""
    pairs = [(int(widths[i]), int(widths[i + 1])) for i in range(0, len(widths), 2)][::-1]
    lead = max(0, len(pairs) - (x.dim() - 2))
    if lead:
        flat = [n for pair in reversed(pairs[:lead]) for n in pair]
        x = F.pad(x, [0, 0] * (len(pairs) - lead) + flat)
    return pad(x, pairs[lead:], "circular")
