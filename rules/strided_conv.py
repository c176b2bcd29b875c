"""Strided convolution.

    σ ∘ Conv_{k,s}  =  σ ∘ Subsample_s ∘ Conv_k   →   Subsample_s ∘ Blur_m ∘ σ ∘ Conv_k        (dense)
        Conv_{k,s}                                →   Conv_{k,s} ∘ Blur_m                      (blur-first)
    σ ∘ Conv_{k,4}                                →   Subsample_2 ∘ Blur_m ∘ σ ∘ Conv_{k,2}    (split: stems, σ or none)

Conv_k at stride 1 commutes with shifts; keeping every s-th sample aliases. The blur goes behind the first nonlinearity
σ, which makes new high frequencies. If no nonlinearity follows, the blur commutes with the convolution and goes first,
which saves computation; before a 1x1 convolution it also subsamples.

Shapes: unchanged, (N, C, ⌈L/s⌉ …) with L the dense map.

Weights: the convolution's own, untouched.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3 (StridedConv →
ConvBlurPool); AlexNet's stem there in the supplementary material.
"""

from typing import Any

from torch import nn

from aliasfix.planning.low_pass import BLURS, is_blurred, is_low_pass
from aliasfix.planning.rule import Arguments, Case, Function, Rule, Site, per_axis, spatial_axes, wrap_input
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace

_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class StridedConv(Rule):
    """``conv1d/2d/3d``, dense, grouped, depthwise or dilated, as modules or functions."""

    signatures = {f"conv{n}d": _PARAMETERS for n in (1, 2, 3)}
    modules = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    sinks = True
    stem = True

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a convolution of stride above 1; a low-pass filter, or one behind a blur, is kept."""
        axes = spatial_axes(call.name)
        stride = per_axis(call.arguments.get("stride", 1), axes)
        if max(stride) == 1:
            return None
        dilation = per_axis(call.arguments.get("dilation", 1), axes)
        size = of(call.arguments["weight"]).sizes[-axes:]
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True))
        reason = None
        if is_low_pass(trace, call.arguments["weight"], call.arguments.get("groups", 1)):
            reason = "It is a low-pass filter with a fixed kernel already."
        elif of(call.arguments["input"]).name in BLURS:
            reason = "aliasfix has blurred its input already."
        elif is_blurred(trace, call.arguments["input"], stride):
            reason = "Its input is blurred already, by a convolution with a fixed low-pass kernel."
        return Site(stride, reach, reason, smooth=reason is not None)

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """Compute the convolution at ``stride``, which is 1 unless it is split or blurred first."""
        axes = spatial_axes(op)
        x, padding = bound["input"], bound.get("padding", 0)
        if wrap and not isinstance(padding, str):
            dilation, size = per_axis(bound.get("dilation", 1), axes), bound["weight"].shape[-axes:]
            reach = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
            x, padding = wrap_input(x, per_axis(padding, axes), reach, per_axis(bound["stride"], axes)), 0
        options = {k: bound[k] for k in ("bias", "dilation", "groups") if k in bound}
        return func(x, bound["weight"], stride=stride, padding=padding, **options)

    cases = (
        Case("then_relu", lambda: _after_stem(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())),
        Case("then_norm_relu", lambda: _after_stem(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))),
        Case("grouped", lambda: _after_stem(nn.Conv2d(4, 8, 3, 2, 1, groups=2), nn.GELU())),
        Case("depthwise", lambda: _after_stem(nn.Conv2d(4, 4, 5, 2, 2, groups=4), nn.BatchNorm2d(4), nn.Hardswish())),
        Case("dilated", lambda: _after_stem(nn.Conv2d(4, 6, 3, 2, 2, dilation=2), nn.SiLU())),
        Case("even_kernel", lambda: _after_stem(nn.Conv2d(4, 6, 4, 2, 1), nn.LeakyReLU(0.2))),
        Case("one_axis", lambda: _after_stem(nn.Conv2d(4, 6, 3, (1, 2), 1), nn.ReLU())),
        Case("stride_3", lambda: _after_stem(nn.Conv2d(4, 6, 5, 3, 2), nn.ReLU())),
        Case("shortcut", lambda: _after_stem(nn.Conv2d(4, 6, 1, 2), nn.BatchNorm2d(6))),
        Case("patch_merging", lambda: _after_stem(nn.Conv2d(4, 6, 2, 2))),
        Case("before_group_norm", lambda: _after_stem(nn.Conv2d(4, 6, 3, 2, 1), nn.GroupNorm(2, 6), nn.ReLU())),
        Case("circular", lambda: _after_stem(nn.Conv2d(4, 6, 3, 2, 1, padding_mode="circular"), nn.ReLU())),
        Case("in_1d", lambda: _after_stem(nn.Conv1d(4, 6, 3, 2, 1), nn.ReLU(), axes=1), (2, 4, 33)),
        Case("in_3d", lambda: _after_stem(nn.Conv3d(4, 6, 3, 2, 1), nn.ReLU(), axes=3), (2, 4, 9, 10, 11)),
        Case("overlapping_stem", lambda: nn.Sequential(nn.Conv2d(4, 6, 11, 4, 2), nn.ReLU()), (2, 4, 33, 40)),
        Case("overlapping_stem_alone", lambda: nn.Sequential(nn.Conv2d(4, 6, 7, 4, 3)), (2, 4, 33, 40)),
        Case("stem", lambda: nn.Sequential(nn.Conv2d(4, 6, 7, 2, 3), nn.ReLU()), kept="stem"),
        Case("patch_embedding", lambda: nn.Sequential(nn.Conv2d(4, 6, 4, 4)), kept="patch"),
    )


def _after_stem(*layers: nn.Module, axes: int = 2) -> nn.Module:
    """Return the layers behind a max pool, so that they are no stem."""
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    return nn.Sequential(pool(3, 1, 1), pool(2), *layers)
