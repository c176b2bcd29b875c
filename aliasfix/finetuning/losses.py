"""What fine-tuning minimises: labels, the original's output, and agreement between two shifts.

    (1 − d) · CE(f(x), y)  +  d · T² KL(original(x)/T ‖ f(x)/T)  +  c · ½ [KL(f(x') ‖ f(x'')) + KL(f(x'') ‖ f(x'))]

Source: the second term is the distillation of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
Network", 2015, section 2, at temperature T; the third asks for what consistency measures (Zhang, ICML 2019, section
4.2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .distilling import consistency as consistency
from .distilling import distillation as distillation
from .kinds import Labels, Logits, Said
from .moving import moved

_BORDERS = {"reflect": "reflect", "replicate": "replicate", "zero": "constant", "circular": "circular"}


def shifted(images: Tensor, offsets: Tensor, reach: int, padding: str) -> Tensor:
    """Each image moved by its own offset.

    Args:
        images: (B, C, H, W).
        offsets: (B, 2), whole pixels down and to the right, in −reach … reach.
        reach: in pixels.
        padding: how an image goes on past its border, in the words of `aliasfix.Recipe`.

    >>> shifted(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[0, 1]]), 1, "circular")
    tensor([[[[3., 1., 2.]]]])
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode=_BORDERS[padding])
    corners = (reach - offsets).tolist()
    moved = [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, corners, strict=True)]
    return torch.stack(moved)


class Objective(nn.Module):
    """The loss of a batch as a module around the model: what accelerate wraps, so that the model stays as it is.

    Args:
        model: the one to train.
        original: the one to learn from, None if ``share`` is 0.
        share: d above, 0 … 1.
        weight: c above, 0 or more.
        padding: see `shifted`.
        temperature: T above.
        learning: what the terms are for the kind of the output; by default those of logits, as they stand above.
    """

    def __init__(
        self,
        model: nn.Module,
        original: nn.Module | None,
        share: float,
        weight: float,
        padding: str,
        temperature: float = 1.0,
        learning: Logits | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._original = [original]  # in a list, so that it is no part of the module: it is not trained
        self.share, self.weight, self.padding, self.temperature = share, weight, padding, temperature
        self.learning = learning or Logits(None)

    def forward(self, images: Tensor, labels: Labels, offsets: Tensor | None = None, reach: int = 0) -> Tensor:
        """The loss of images (B, C, H, W), of their labels, and of offsets (2, B, 2) for the consistency term."""
        if offsets is None:
            return self.fit(self.learning.said(self.model, images, labels), images, labels).mean()
        pair = [shifted(images, each, reach, self.padding) for each in offsets]
        both, labels = torch.cat(pair), moved(labels, offsets, reach, images.shape[-2:])
        # at once: with DistributedDataParallel a step is one forward
        said = self.learning.said(self.model, both, labels)
        halves = [Said(tuple(half)) for half in zip(*(one.chunk(2) for one in said.maps), strict=True)]
        one, other = (
            self.learning.seen(half, each, reach, images.shape[-2:]) for half, each in zip(halves, offsets, strict=True)
        )
        loss = self.fit(said, both, labels).mean()
        return loss + self.weight * self.learning.together(one, other).mean()

    def fit(self, said: Said, images: Tensor, labels: Labels) -> Tensor:
        """The first two terms, (B,)."""
        loss = said.maps[0].new_zeros(len(images))
        if labels is not None and self.share < 1:
            loss = loss + (1 - self.share) * self.learning.labelled(said, labels)
        if self.share > 0:
            loss = loss + self.share * self.learning.apart(said, self.target(images), self.temperature)
        return loss

    @torch.no_grad()
    def target(self, images: Tensor) -> Said:
        """What the original says."""
        (original,) = self._original
        assert original is not None
        return self.learning.said(original, images)
