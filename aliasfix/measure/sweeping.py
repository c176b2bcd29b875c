"""One pass of a classifier over a set of shifts; the metrics over all of them are read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images, batches, check_labels, load
from aliasfix.measure.running import Model, Output, running
from aliasfix.measure.shifts import Shift, circular, crop


@dataclass(frozen=True)
class Sweep:
    """What a classifier said of I images at N shifts."""

    shifts: tuple[Shift, ...]
    """N shifts (dh, dw), in pixels."""
    top1: Tensor
    """(I, N), the class predicted."""
    probability: Tensor
    """(I, N), the softmax probability of `target`, in [0, 1]."""
    target: Tensor
    """(I,), the label; without labels the class predicted for the unshifted image."""


def sweep(
    model: Model,
    images: Images,
    shifts: Sequence[Shift],
    *,
    size: int | None = None,
    batch_size: int = 64,
    output: Output = None,
) -> Sweep:
    """Classify every image at every shift, circular or by crop.

    However many shifts: at any time there are in memory at most `batch_size` images and as many shifted ones,
    what the model makes of these, and 12 bytes for every image and shift measured.

    Args:
        model: Takes (B, C, H, W), returns logits (B, classes).
        images: See `Images`; a folder is read at 224 x 224 for circular shifts, at 256 x 256 for crops.
        shifts: N shifts in pixels, whole or fractional; see `grid`, `every` and `diagonal`.
        size: Side of the crop, in pixels; None shifts circularly.
        batch_size: Most inputs the model is given at a time.
        output: Where the logits are in what the model returns.

    Raises:
        AliasfixError: No shifts, no images, labels that cannot be the model's, crops leaving the image, or an
            unusable output.

    Source: Zhang 2019 (ICML), Sec. 3.1 (circular) and 4.2 (crops).

    >>> from torch import nn
    >>> pool = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())  # four classes: which quarter is the brightest
    >>> dot = torch.zeros(1, 1, 4, 4).index_fill(3, torch.tensor([0]), 1)
    >>> sweep(pool, dot, [(0, 0), (0, 1), (0, 2)]).top1
    tensor([[0, 0, 1]])
    """
    if not shifts:
        raise AliasfixError("there are no shifts to measure at")
    source = load(images, 224 if size is None else 256, model)
    targets, top1, probability = [], [], []
    with running(model, output, "shifts") as run:
        for batch, labels in batches(source, batch_size):
            batch = run.place(batch)
            axes = run.axes(batch)
            target = run.logits(_shifted(batch, (0, 0), size, axes)).argmax(1) if labels is None else run.place(labels)
            # in place: small tensors kept between large short-lived ones fragment the heap
            classes = torch.empty(len(batch), len(shifts), dtype=torch.long)
            probabilities = torch.empty(len(batch), len(shifts))
            step = max(1, batch_size // len(batch))
            for start in range(0, len(shifts), step):
                chunk = shifts[start : start + step]
                logits = run.logits(torch.cat([_shifted(batch, shift, size, axes) for shift in chunk]))
                if labels is not None:
                    check_labels(source, labels, logits.shape[1])
                logits = logits.view(len(chunk), len(batch), -1)
                classes[:, start : start + step] = logits.argmax(2).T
                watched = target[None, :, None].expand(len(chunk), -1, 1)
                probabilities[:, start : start + step] = logits.softmax(2).gather(2, watched)[..., 0].T
            targets.append(target.cpu())
            top1.append(classes)
            probability.append(probabilities)
    return Sweep(tuple(shifts), torch.cat(top1), torch.cat(probability), torch.cat(targets))


def _shifted(batch: Tensor, shift: Shift, size: int | None, axes: int) -> Tensor:
    return circular(batch, *shift) if size is None else crop(batch, *shift, size, axes)
