"""Pixel shuffle: channels to space.

    Shuffle_s   →   Blur_m ∘ Shuffle_s

The s² channels that become neighbouring samples come from different weights. Their differences repeat with period s, a
checkerboard. A blur of gain 1 at the high resolution attenuates it.

Shapes: unchanged, (N, C s², H, W) → (N, C, H s, W s).

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, image translation, applied to the
sub-pixel convolution of Shi et al., CVPR 2016.
"""

from torch import nn

from aliasfix.planning.rule import Case, Rule, Site
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace


class PixelShuffle(Rule):
    """``pixel_shuffle``, as module or function."""

    signatures = {"pixel_shuffle": ("input", "upscale_factor")}

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a shuffle by more than 1."""
        factor = call.arguments["upscale_factor"]
        return None if factor == 1 else Site((factor, factor), enlarges=True)

    cases = (
        Case("module", lambda: nn.PixelShuffle(2)),
        Case("by_3", lambda: nn.Sequential(nn.Conv2d(4, 18, 3, padding=1), nn.PixelShuffle(3), nn.ReLU())),
    )
