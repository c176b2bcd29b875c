"""How often a classifier gives one image the same class at two different shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images, batches, check_labels, load
from aliasfix.measure.metric import Metric
from aliasfix.measure.overlap import window
from aliasfix.measure.running import Model, Output, running
from aliasfix.measure.shifts import circular
from aliasfix.measure.subject import Subject
from aliasfix.measure.sweeping import Sweep


@dataclass(frozen=True)
class Consistency:
    """Of I images at `passes` pairs of shifts each; the papers' figures are the means over images."""

    agreement: Tensor
    """(I,), share of the pairs whose two predictions are equal, in [0, 1]; 1 is shift-invariant."""
    change: Tensor
    """(I,), mean over the pairs of |p(c) − p(c) at the other shift|, c predicted at the first; [0, 1]."""
    top1: Tensor | None
    """(I,), share of the shifted images that are classified correctly, in [0, 1]; None without labels."""
    top5: Tensor | None
    """(I,), the same for the label being among the five best."""


def crop_consistency(
    model: Model,
    images: Images,
    *,
    size: int = 224,
    margin: int = 32,
    passes: int = 5,
    batch_size: int = 64,
    seed: int = 0,
    output: Output = None,
) -> Consistency:
    """Consistency between two random crops of an image: the ImageNet protocol.

    The centre `size + margin` pixels of each image (256) are cropped to `size` (224) at two offsets drawn
    from 0 … `margin` − 1 on each axis. The paper's code draws one pair for a batch; here every image draws
    its own, so that `batch_size` changes nothing.

    E 1{argmax P(Shift_{h0,w0}(X)) = argmax P(Shift_{h1,w1}(X))}

    Args:
        model: Takes (B, C, size, size), returns logits (B, classes).
        images: See `Images`; at least `size + margin` pixels on both sides.
        size: Side of the crops, in pixels.
        margin: Number of offsets on each axis.
        passes: Pairs for each image.
        batch_size: Most inputs the model is given at a time.
        seed: Of the offsets.
        output: Where the logits are in what the model returns.

    Raises:
        AliasfixError: Images that are too small or absent, labels that cannot be the model's, or an unusable
            output.

    Source: Zhang 2019 (ICML), Sec. 4.2, "Classification consistency"; `change` is the mean absolute change of
    Azulay & Weiss 2019 (JMLR), between the same pairs.

    >>> from torch import nn
    >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> crop_consistency(mean, torch.ones(2, 3, 8, 8), size=4, margin=4).agreement
    tensor([1., 1.])
    """

    side = size + margin

    def offsets(height: int, width: int) -> tuple[int, int]:
        if min(height if height > 1 else width, width) < side:
            raise AliasfixError(
                f"an image of {height}x{width} has no {size} + {margin} pixels to crop from: load it larger"
            )
        return margin if height > 1 else 1, margin

    def view(image: Tensor, axes: int, dh: int, dw: int) -> Tensor:
        return window(
            image, [d + (n - side) // 2 for d, n in zip((dh, dw)[-axes:], image.shape[-axes:], strict=True)], size
        )

    return _measure(model, load(images, side, model), offsets, view, passes, batch_size, seed, output)


def circular_consistency(
    model: Model,
    images: Images,
    *,
    passes: int = 5,
    batch_size: int = 64,
    seed: int = 0,
    output: Output = None,
) -> Consistency:
    """Consistency between two circular shifts of an image, drawn from all whole shifts of its size.

    Where every shift is affordable, `grid_consistency` gives the expectation itself.

    Args:
        model: Takes (B, C, H, W), returns logits (B, classes).
        images: See `Images`; a folder is read at 224 x 224.
        passes: Pairs for each image.
        batch_size: Most inputs the model is given at a time.
        seed: Of the shifts.
        output: Where the logits are in what the model returns.

    Raises:
        AliasfixError: No images, labels that cannot be the model's, or an unusable output.

    Source: Zhang 2019 (ICML), Sec. 3.1 (circular shifts) and 4.2, "Classification consistency".

    >>> from torch import nn
    >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> circular_consistency(mean, torch.eye(4).expand(1, 3, 4, 4)).change
    tensor([0.])
    """

    def view(image: Tensor, axes: int, dh: int, dw: int) -> Tensor:
        return circular(image, dh, dw)

    return _measure(model, load(images, 224, model), lambda *sides: sides, view, passes, batch_size, seed, output)


def grid_consistency(sweep: Sweep) -> Tensor:
    """Exact consistency over the shifts of a sweep: the probability that two of them agree.

    Drawn independently, with n_c of the N shifts predicted as class c: Σ_c (n_c / N)².

    Returns:
        (I,), in (0, 1]; 1 is shift-invariant over these shifts.

    Source: Zhang 2019 (ICML), Sec. 4.2, "Classification consistency", the expectation written out.

    >>> one = torch.zeros(1)
    >>> grid_consistency(Sweep(((0, 0), (0, 1), (1, 0), (1, 1)), torch.tensor([[3, 3, 3, 8]]), one, one))
    tensor([0.6250])
    """
    shares = (row.unique(return_counts=True)[1] / len(row) for row in sweep.top1)
    return torch.stack([share.square().sum() for share in shares])


def _measure(
    model: Model,
    source: Iterable[Any],
    offsets: Callable[[int, int], tuple[int, int]],
    view: Callable[[Tensor, int, int, int], Tensor],
    passes: int,
    batch_size: int,
    seed: int,
    output: Output,
) -> Consistency:
    random = torch.Generator().manual_seed(seed)
    agreement, change, top1, top5 = [], [], [], []
    with running(model, output, "consistency") as run:
        for images, labels in batches(source, batch_size):
            axes, high = run.axes(images), offsets(*run.sides(images))
            # all draws of one image before the next image's: they do not depend on how images are batched
            drawn = [[torch.randint(n, (passes, 2), generator=random).tolist() for n in high] for _ in images]
            images = run.place(images)
            agreed, changed = torch.zeros(2, len(images))
            ranks = []
            for n in range(passes):
                pair = []
                for end in range(2):
                    views = [
                        view(image, axes, dh[n][end], dw[n][end]) for image, (dh, dw) in zip(images, drawn, strict=True)
                    ]
                    pair.append(run.logits(torch.stack(views)).cpu())
                first, second = (logits.argmax(1, keepdim=True) for logits in pair)
                agreed += (first == second)[:, 0]
                before, after = (logits.softmax(1).gather(1, first)[:, 0] for logits in pair)
                changed += (before - after).abs()
                if labels is not None:
                    check_labels(source, labels, pair[0].shape[1])
                    ranks += [(logits.topk(min(5, logits.shape[1])).indices == labels[:, None]) for logits in pair]
            agreement.append(agreed / passes)
            change.append(changed / passes)
            if labels is not None:
                hits = torch.stack(ranks).float()  # (2 passes, B, 5)
                top1.append(hits[..., 0].mean(0))
                top5.append(hits.sum(2).mean(0))
    correct = (torch.cat(top1), torch.cat(top5)) if top1 else (None, None)
    return Consistency(torch.cat(agreement), torch.cat(change), *correct)


def pairs(subject: Subject) -> Consistency:
    """Classify the images at pairs of random shifts: by crop where they have a margin, else circularly."""
    views = subject.views
    if views.margin:
        return crop_consistency(subject.model, views, size=views.size, margin=views.margin, **subject.drawn)
    return circular_consistency(subject.model, views, **subject.drawn)


def _top(subject: Subject, name: str) -> Tensor:
    correct: Tensor | None = getattr(subject.once(pairs), name)
    assert correct is not None  # the metric needs labels
    return correct


CONSISTENCY = Metric(
    "consistency",
    "consistency: two random shifts get one class",
    "higher",
    lambda subject: subject.once(pairs).agreement,
    needs=("logits",),
    light=True,
    order=10,
)
CHANGE = Metric(
    "change",
    "change of the top-1 probability between them",
    "lower",
    lambda subject: subject.once(pairs).change,
    needs=("logits",),
    light=True,
    order=20,
)
TOP1 = Metric(
    "top1",
    "accuracy",
    "higher",
    lambda subject: _top(subject, "top1"),
    needs=("logits", "labels"),
    light=True,
    order=70,
)
TOP5 = Metric(
    "top5",
    "top-5 accuracy",
    "higher",
    lambda subject: _top(subject, "top5"),
    needs=("logits", "labels"),
    light=True,
    order=80,
)
