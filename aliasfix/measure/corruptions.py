"""Accuracy on images that are corrupted in the fifteen ways of ImageNet-C."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.folder import IMAGENET_MEAN, IMAGENET_STD, ImageFolder
from aliasfix.images.inputs import batches, check_labels
from aliasfix.measure.drawing import Table
from aliasfix.measure.metric import Metric
from aliasfix.measure.running import Model, Output, running
from aliasfix.measure.subject import Subject

if TYPE_CHECKING:
    from aliasfix.comparison.result import Comparison

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class CorruptionErrors:
    """Measured on I images, under each corruption at each severity."""

    names: tuple[str, ...]
    """The corruptions."""
    wrong: Tensor
    """(corruptions, severities, I) bool, whether the image was misclassified; its mean is the top-1 error."""


def corruption_errors(
    model: Model,
    images: str | Path | ImageFolder | Iterable[tuple[Tensor, int]],
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    batch_size: int = 64,
    seed: int = 0,
    output: Output = None,
) -> CorruptionErrors:
    """Top-1 error under the common corruptions.

    The corruptions are those of `imagecorruptions-imaug` (`pip install aliasfix[corruptions]`). The same seed
    corrupts the same image alike for every model.

    Args:
        model: Takes (B, 3, H, W), returns logits (B, classes).
        images: Pairs of a (3, H, W) uint8 image in 0 … 255, at least 32 x 32, and its label; or an image
            folder with classes, whose mean and std are used; a folder's path is read at 224 x 224.
        corruptions: Names; by default the fifteen of ImageNet-C.
        severities: 1 to 5.
        mean: Per channel, subtracted from values in [0, 1] after corrupting.
        std: Per channel, divided by.
        batch_size: Most inputs the model is given at a time.
        seed: Of the corruptions' randomness.
        output: Where the logits are in what the model returns.

    Raises:
        AliasfixError: The package is missing, a corruption is unknown, images are not uint8 or have no label,
            or an unusable output.

    Source: Hendrycks & Dietterich 2019 (ICLR), Sec. 4 (ImageNet-C); Zhang 2019 (ICML) reports it with and
    without anti-aliasing.

    >>> from torch import nn
    >>> grey = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the strongest colour
    >>> image = torch.zeros(3, 32, 32, dtype=torch.uint8).index_fill(0, torch.tensor([1]), 200)
    >>> corruption_errors(grey, [(image, 1)], corruptions=["contrast"]).wrong
    tensor([[[False],
             [False],
             [False],
             [False],
             [False]]])
    """
    try:
        import numpy as np
        from imagecorruptions import corrupt, get_corruption_names
    except ImportError as error:
        raise AliasfixError(f"corruptions need another package ({error}): pip install aliasfix[corruptions]") from None
    known = get_corruption_names("all")
    names = tuple(corruptions or get_corruption_names())
    if unknown := [name for name in names if name not in known]:
        raise AliasfixError(f"no such corruption: {', '.join(unknown)}; there are {', '.join(known)}")
    if isinstance(images, str | Path):
        images = ImageFolder(images, size=224)
    if isinstance(images, ImageFolder):
        mean, std = images.prepared.normalisation
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def corrupted(image: Tensor, number: int, name: str, severity: int) -> Tensor:
        pixels = image.byte().permute(1, 2, 0).numpy()
        (state,) = np.random.SeedSequence((seed, number, known.index(name), severity)).generate_state(1)
        before = np.random.get_state()
        np.random.seed(state)
        # these two draw from a state of their own
        own = {"seed": int(state)} if name in ("glass_blur", "impulse_noise") else {}
        try:
            noisy = corrupt(pixels, corruption_name=name, severity=severity, **own)
        finally:
            np.random.set_state(before)
        return (torch.tensor(noisy).permute(2, 0, 1) / 255 - shift) / scale

    wrong, start = [], 0
    with running(model, output, "corruptions") as run:
        for batch, labels in batches(_bytes(images), batch_size):
            if labels is None:
                raise AliasfixError("corruption errors need labels: give pairs of an image and its label")
            found = torch.empty(len(names), len(severities), len(batch), dtype=torch.bool)
            for c, name in enumerate(names):
                for s, severity in enumerate(severities):
                    noisy = [corrupted(image, start + i, name, severity) for i, image in enumerate(batch)]
                    logits = run.logits(run.place(torch.stack(noisy))).cpu()
                    check_labels(images, labels, logits.shape[1])
                    found[c, s] = logits.argmax(1) != labels
            wrong.append(found)
            start += len(batch)
    return CorruptionErrors(names, torch.cat(wrong, 2))


def _bytes(images: Iterable[Any]) -> Iterator[tuple[Tensor, Any]]:
    for image, label in images.pixels() if isinstance(images, ImageFolder) else images:
        if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
            raise AliasfixError("corruptions work on (3, H, W) uint8 images in 0 ... 255, before normalisation")
        yield image.float(), label


def mean_corruption_error(errors: CorruptionErrors, reference: CorruptionErrors) -> float:
    """Mean over corruptions of the error summed over severities, relative to that of a reference model.

    mCE = mean_c (Σ_s E_{s,c} / Σ_s E^{ref}_{s,c}). The papers' reference is AlexNet; for a conversion it is
    the original model.

    Returns:
        At least 0, as a fraction (the papers print percent); below 1 is more robust than the reference.

    Raises:
        AliasfixError: The two were not measured under the same corruptions, or the reference makes no error
            under one of them.

    Source: Hendrycks & Dietterich 2019 (ICLR), Sec. 4 (ImageNet-C metrics).

    >>> def errors(*wrong):
    ...     return CorruptionErrors(("fog",), torch.tensor([[wrong]]))
    >>> mean_corruption_error(errors(True, False, False, False), errors(True, True, False, False))
    0.5
    """
    if errors.names != reference.names or errors.wrong.shape[1] != reference.wrong.shape[1]:
        raise AliasfixError("the two models were measured under different corruptions or severities")
    own, other = (one.wrong.double().mean(2).sum(1) for one in (errors, reference))
    if (other == 0).any():
        perfect = [name for name, value in zip(errors.names, other, strict=True) if value == 0]
        raise AliasfixError(f"the reference makes no error under {', '.join(perfect)}: no error is relative to none")
    return float((own / other).mean())


def corrupted(subject: Subject) -> CorruptionErrors:
    """Classify the images under every corruption; without labels, right is the network's own class of the clean one."""
    own = None if subject.views.labelled else subject.sweep([(0.0, 0.0)]).top1[:, 0].tolist()
    pixels = subject.views.pixels(own)
    setting = subject.setting
    return corruption_errors(
        subject.model,
        pixels,
        mean=pixels.mean,
        std=pixels.std,
        batch_size=setting.batch_size,
        seed=setting.seed,
        output=setting.output,
    )


def table(found: Comparison) -> Table | None:
    """List the error of both networks under each corruption."""
    of = found.corruptions
    if of is None:
        return None
    rows = [
        [name.replace("_", " "), f"{one:.1%}", f"{two:.1%}", f"{two / one:.2f}" if one else "–"]
        for name, one, two in zip(of.names, of.a, of.b, strict=True)
    ]
    what = "of a wrong class" if of.labelled else "without labels: of another class than the network's own of the image"
    relative = "" if of.mean_relative is None else (
        f" Mean corruption error of {found.names[1]}, relative to {found.names[0]}: {of.mean_relative:.2f}."
    )  # fmt: skip
    text = f"Share of the corrupted images {what}; means over five severities.{relative}"
    return Table("Common corruptions", text, ("corruption", *found.names, "ratio"), rows)


CORRUPTION = Metric(
    "corruption",
    "error under the common corruptions",
    "lower",
    lambda subject: subject.once(corrupted).wrong.float().mean((0, 1)),
    needs=("logits",),
    optional=True,
    order=90,
    table=table,
)
