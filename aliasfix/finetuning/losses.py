"""What fine-tuning minimises: labels, the original's output, and agreement between two shifts.

    (1 − d) · CE(f(x), y)  +  d · T² KL(original(x)/T ‖ f(x)/T)  +  c · ½ [KL(f(x') ‖ f(x'')) + KL(f(x'') ‖ f(x'))]

Source: the second term is the distillation of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
Network", 2015, section 2, at temperature T; the third asks for what consistency measures (Zhang, ICML 2019, section
4.2).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AliasfixError

_BORDERS = {"reflect": "reflect", "replicate": "replicate", "zero": "constant", "circular": "circular"}


def distillation(logits: Tensor, original: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(original ‖ model) of the class probabilities at a temperature: (B,) of two logits (B, classes).

    The hotter, the more what is said of unlikely classes counts; far above the logits it is their squared difference.

    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> distillation(logits, logits + 3)
    tensor([0.])
    """
    found, wanted = ((each / temperature).log_softmax(1) for each in (logits, original))
    return temperature**2 * F.kl_div(found, wanted, reduction="none", log_target=True).sum(1)


def consistency(one: Tensor, other: Tensor) -> Tensor:
    """The mean of both KL divergences between what a model says at two shifts: (B,) of two logits (B, classes).

    >>> consistency(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])) > 0
    tensor([True])
    """
    return (distillation(one, other) + distillation(other, one)) / 2


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
    """

    def __init__(
        self,
        model: nn.Module,
        original: nn.Module | None,
        share: float,
        weight: float,
        padding: str,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self._original = [original]  # in a list, so that it is no part of the module: it is not trained
        self.share, self.weight, self.padding, self.temperature = share, weight, padding, temperature

    def forward(self, images: Tensor, labels: Tensor | None, offsets: Tensor | None = None, reach: int = 0) -> Tensor:
        """The loss of images (B, C, H, W), of labels (B,), and of offsets (2, B, 2) for the consistency term."""
        if offsets is None:
            return self.fit(checked(self.model(images)), images, labels).mean()
        pair = [shifted(images, each, reach, self.padding) for each in offsets]
        both = torch.cat(pair)
        logits = checked(self.model(both))  # at once: with DistributedDataParallel a step is one forward
        loss = self.fit(logits, both, None if labels is None else labels.repeat(2)).mean()
        return loss + self.weight * consistency(*logits.chunk(2)).mean()

    def fit(self, logits: Tensor, images: Tensor, labels: Tensor | None) -> Tensor:
        """The first two terms, (B,)."""
        loss = logits.new_zeros(len(logits))
        if labels is not None and self.share < 1:
            loss = loss + (1 - self.share) * F.cross_entropy(logits, labels, reduction="none")
        if self.share > 0:
            loss = loss + self.share * distillation(logits, self.target(images), self.temperature)
        return loss

    @torch.no_grad()
    def target(self, images: Tensor) -> Tensor:
        """What the original says, (B, classes)."""
        (original,) = self._original
        assert original is not None
        return checked(original(images))


def checked(output: Any) -> Tensor:
    """Logits (B, classes), in float32 or wider.

    Raises:
        AliasfixError: the model returned something else.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        what = f"{tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise AliasfixError(f"the model returned {what} where fine-tuning needs logits (batch, classes)")
    return output.to(torch.promote_types(output.dtype, torch.float32))
