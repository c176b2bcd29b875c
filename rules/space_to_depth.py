"""Space to depth: neighbouring samples to channels.

    Gather_s   →   Gather_s ∘ Blur_m

A patch of s x s samples becomes s² channels, by a reshape and a permutation (Swin's patch merging in timm) or by
``pixel_unshuffle``. No sample is lost, but each channel is the map subsampled at another phase, and the following
operations mix the channels at the low rate only. The blur goes before the gather; ``gather="keep"``
keeps the gather as it is. As the first operation of a model it is a patch embedding or a stem, and the stem policy
applies.

Shapes: unchanged; the axes split are the spatial ones, wherever they are.

Weights: none.

Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, section 3.1; Liu et al., "Swin
Transformer", ICCV 2021, section 3.1, for the patch merging.
"""

import torch
from torch import fx, nn

from aliasfix.planning.low_pass import BLURS
from aliasfix.planning.rule import Case, Rule, Site
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace

_RESHAPES = {"reshape", "view", "flatten", "unflatten"}


class SpaceToDepth(Rule):
    """``reshape`` … ``permute`` … ``reshape``, and ``pixel_unshuffle``, as module or function."""

    signatures = {"pixel_unshuffle": ("input", "downscale_factor"), "reshape": ("input",), "view": ("input",)}
    stem = True

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a gather of s x s samples into the channels."""
        if not call.variable or call.shape is None:
            return None
        if call.name == "pixel_unshuffle":
            factor = call.arguments["downscale_factor"]
            found = (factor, (-2, -1)) if factor > 1 else None
        else:
            found = _gathered(call.node)
        if found is None:
            return None
        stride, axes = (found[0],) * 2, found[1]
        reason = None
        if of(call.arguments["input"]).name in BLURS:
            reason = "aliasfix has blurred its input already."
        return Site(stride, stride, reason, before=True, axes=() if axes == (-2, -1) else axes, whole=True)

    cases = (
        Case("swin_in_timm", lambda: _PatchMerging(), (2, 4, 16, 20), multiple=4),
        Case(
            "pixel_unshuffle", lambda: nn.Sequential(nn.MaxPool2d(2), nn.PixelUnshuffle(2)), (2, 4, 16, 20), multiple=4
        ),
        Case("patch_embedding", lambda: nn.Sequential(nn.PixelUnshuffle(4), nn.ReLU()), (2, 4, 16, 20), kept="patch"),
    )


def _gathered(node: fx.Node) -> tuple[int, tuple[int, int]] | None:
    """Return the patch size and the spatial axes, counted from the end, of a reshape that begins a space to depth.

    Two neighbouring axes n are split into (n/s, s), and a permutation moves both s into the axis of the channels. A
    window partition begins with the same reshape, but moves them elsewhere.
    """
    source = of(node.all_input_nodes[0]).shape if node.all_input_nodes else None
    shape = of(node).sizes
    if source is None or len(source) != 4 or len(shape) != 6:
        return None
    chain = node
    while len(chain.users) == 1:
        chain = next(iter(chain.users))
        if of(chain).name in _RESHAPES:
            break
        if of(chain).name not in ("permute", "transpose", "contiguous"):
            return None
    end = of(chain).shape
    for first, channels in ((1, 3), (2, 1)):
        split = (*source[:first], *shape[first : first + 4], *source[first + 2 :])
        rate = shape[first + 1]
        if split != shape or rate < 2 or shape[first + 3] != rate or shape[first] * rate != source[first]:
            continue
        merged = source[channels] * rate * rate
        if (
            end is not None
            and len(end) > 2
            and merged in (end[-1], end[1])
            and rate * shape[first + 2] == source[first + 1]
        ):
            return rate, (first - 4, first - 3)
    return None


class _PatchMerging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """An NHWC map, split, permuted and flattened."""
        x = self.pool(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return torch.as_tensor(self.norm(x))
