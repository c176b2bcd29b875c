"""Interpolation to another size.

    Nearest_{↑s}  =  Box_s ∘ Zeros_s   →   Blur_m ∘ Nearest_{↑s}            (average="keep")
                                       →   s · Blur_m ∘ Zeros_s             (average="replace")
    Nearest_{↓s}  =  Subsample_s       →   Subsample_s ∘ Blur_m

Repeating each sample s times equals inserting zeros and averaging. Like an average pool it is kept and blurred, or
replaced by the filter with a gain that compensates for the zeros: ``rect2`` gives nearest-neighbour, ``bin4`` bilinear
interpolation. An enlargement by a ratio that is no integer is kept. Bilinear and bicubic interpolation are low-pass
filters already, and are kept.

Shapes: unchanged.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, image translation.
"""

from typing import Any

from torch import nn
from torch.nn import functional as F

from aliasfix.layers.blur import BlurPool
from aliasfix.layers.padding import pad
from aliasfix.planning.rule import Arguments, Case, Function, Rule, Site
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace


class Interpolate(Rule):
    """``interpolate``, as ``nn.Upsample`` or the function."""

    signatures = {"interpolate": ("input", "size", "scale_factor", "mode", "align_corners")}
    enlarges = True
    resizes = True

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a change of size; only nearest-neighbour interpolation by an integer is converted."""
        axes = len(call.sizes) - 2
        old, new = of(call.arguments["input"]).sizes[-axes:], call.sizes[-axes:]
        if old == new:
            return None
        up = all(n >= o for o, n in zip(old, new, strict=True))
        ratio = tuple(-(-max(o, n) // min(o, n)) for o, n in zip(old, new, strict=True))
        whole = up and all(n % o == 0 for o, n in zip(old, new, strict=True))
        whole = whole or all(o % n == 0 for o, n in zip(old, new, strict=True))
        mode = call.arguments.get("mode", "nearest")
        reason = None
        if not mode.startswith("nearest"):
            reason = f"Interpolation of mode {mode} is a low-pass of its own."
        elif not whole:
            reason = "The ratio of the sizes is no integer, so that no one filter fits all samples."
        smooth = reason is not None and up and whole and not call.arguments.get("align_corners")
        return Site(ratio, reason=reason, enlarges=up, before=not up, smooth=smooth)

    def pads(self, bound: dict[str, Any]) -> bool:
        """Whether it interpolates between the samples, and so continues the map past its border."""
        mode: str = bound.get("mode", "nearest")
        return not mode.startswith("nearest")

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Interpolate an input that is padded circularly, and crop the result."""
        reach, axes = 2, len(stride)
        x = pad(bound["input"], [(reach, reach)] * axes, "circular")
        out = func(x, scale_factor=tuple(float(s) for s in stride), mode=bound["mode"], align_corners=False)
        for axis, rate in enumerate(stride):
            out = out.narrow(axis - axes, reach * rate, bound["input"].shape[axis - axes] * rate)
        return out

    def replaces(self, op: str, bound: dict[str, Any], recipe: Recipe) -> bool:
        """Whether it enlarges, and the recipe replaces averages."""
        scale, size = bound.get("scale_factor"), bound.get("size")
        last: Any = scale if scale is not None else size
        last = last[-1] if isinstance(last, tuple | list) else last
        least = 1 if scale is not None else of(bound["input"]).sizes[-1]
        return recipe.average == "replace" and bool(last > least)

    def replace(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """Insert zeros and filter."""
        return blur(bound["input"])

    def replacement_shift(self, bound: dict[str, Any], taps: tuple[int, ...]) -> tuple[float, ...]:
        """Half a sample of the output if the sum of taps and rate is odd."""
        old, size, scale = of(bound["input"]).sizes[-len(taps) :], bound.get("size"), bound.get("scale_factor")
        given: Any = scale if scale is not None else size
        each = tuple(given) if isinstance(given, tuple | list) else (given,) * len(taps)
        rates = each if scale is not None else tuple(n / o for n, o in zip(each, old, strict=True))
        return tuple(0.5 / r if (m + r) % 2 else 0.0 for m, r in zip(taps, rates, strict=True))

    cases = (
        Case("upsample", lambda: nn.Upsample(scale_factor=2)),
        Case("nearest_exact", lambda: nn.Upsample(scale_factor=3, mode="nearest-exact")),
        Case("in_1d", lambda: nn.Upsample(scale_factor=2), (2, 4, 9)),
        Case("in_3d", lambda: nn.Upsample(scale_factor=2), (2, 4, 3, 4, 5)),
        Case("function", lambda: _Resize(2.0)),
        Case("downsampling", lambda: _Resize(0.5)),
        Case("bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), kept="bilinear"),
        Case("no_integer", lambda: _Resize(1.5), kept="no integer"),
    )


class _Resize(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        """A function call between a convolution and a nonlinearity."""
        return F.relu(F.interpolate(self.conv(x), scale_factor=self.scale))
