"""Whether a network sees images as it was trained to, before anything is concluded from what it says of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from aliasfix.images.inputs import batches
from aliasfix.images.views import Views
from aliasfix.measure.running import Output, running

NEARLY_ALL = 0.85
"""Share of the images from which on one class is that of nearly all."""
CLOSE = 0.1
"""How far above chance, and no further than twice chance, accuracy says nothing."""
FEWEST = 8
"""Images of which fewer may well be of one class."""


def doubt(called: str, top1: Tensor, labels: Tensor | None, classes: int, prepared: object) -> str | None:
    """Why nothing can be concluded from what a network says of images, in words; None where nothing speaks against it.

    It gives nearly all of them one class, which their labels do not have, or with labels it is no better than chance.

    Args:
        called: what the network is called.
        top1: (I,), the class that it gives each image.
        labels: (I,), or None.
        classes: how many it tells apart.
        prepared: how the images were prepared, in words; None where the user did it.

    >>> doubt("net.pth", torch.zeros(60), None, 10, None)
    'net.pth gives 60 of 60 images one class: the images are probably not prepared as it was trained, unless they all \
show the same'
    >>> doubt("net.pth", torch.arange(60) % 10, torch.arange(60) % 10, 10, None)
    """
    if classes == 1:
        return (
            f"{called} returns one number, which is always the largest: pass output= a function that makes two logits"
        )
    if len(top1) < FEWEST:
        return None
    found = list(_found(top1, labels, classes))
    if not found:
        return None
    other = "unless they all show the same" if labels is None else "or the labels are in another order than its classes"
    text = f"{called} {' and '.join(found)}: the images are probably not prepared as it was trained, {other}"
    if prepared is None:
        return text
    return f"{text}. They are {prepared}. Give what it was trained with: --size, --mean, --std (preprocessing=)"


def doubt_of(model: nn.Module, views: Views, called: str, output: Output = None, batch_size: int = 16) -> str | None:
    """The same, of a classifier on the centres of its images."""
    top1, labels, classes = [], [], 0
    with running(model, output, "classes") as run:
        for images, own in batches(views, batch_size):
            logits = run.logits(run.place(views.centre(images)))
            top1.append(logits.argmax(1).cpu())
            labels += [] if own is None else [own]
            classes = logits.shape[1]
    return doubt(called, torch.cat(top1), torch.cat(labels) if labels else None, classes, views.prepared)


def _found(top1: Tensor, labels: Tensor | None, classes: int) -> Iterator[str]:
    total = len(top1)
    most = _most(top1)
    if most >= NEARLY_ALL * total and (labels is None or _most(labels) < NEARLY_ALL * total):
        yield f"gives {most} of {total} images one class"
    if labels is not None:
        right, chance = int((top1 == labels).sum()), 1 / classes
        # where images are few, luck is worth a standard error
        hardly = max(math.sqrt(chance * (1 - chance) / total), min(chance, CLOSE))
        if right / total <= chance + hardly:
            yield f"is right on {right} of {total}, hardly more than by chance"


def _most(classes: Tensor) -> int:
    return Counter(classes.tolist()).most_common(1)[0][1]
