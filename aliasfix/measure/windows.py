"""Run a network on pairs of windows on its images: what the measures of consistency have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aliasfix.families.reading import Answer
from aliasfix.images.inputs import batches
from aliasfix.measure.overlap import Corner, drawn, shared, window
from aliasfix.measure.running import running
from aliasfix.measure.subject import Subject


@dataclass(frozen=True)
class Pair:
    """Two windows on one image, and what the network says of them.

    Args:
        index: of the image in its batch.
        corners: where the windows begin on the image.
        part: first and last row and column of the part that both see; of signals, samples.
        answers: of the batch, to the windows of each end.
    """

    index: int
    corners: tuple[Corner, Corner]
    part: Sequence[tuple[int, int]]
    answers: tuple[Answer, Answer]


def agreement(subject: Subject, what: str, agree: Callable[[Pair], float]) -> Tensor:
    """(I,): the mean over an image's pairs of windows of how much the two answers agree; nan where none says.

    Args:
        subject: the network and its images.
        what: is measured, for the progress.
        agree: of one pair.
    """
    found = [[agree(pair) for pair in of_one] for of_one in windows(subject, what)]
    return torch.tensor(found).nanmean(1)


def windows(subject: Subject, what: str) -> Iterator[list[Pair]]:
    """The pairs of windows of each image: crops where the images have a margin, else circular shifts.

    What is drawn of an image does not depend on how images are batched.
    """
    setting, views = subject.setting, subject.views
    random = torch.Generator().manual_seed(setting.seed)
    with running(subject.model, setting.output, what) as run:
        for images, _ in batches(views, setting.batch_size, labels=False):
            sides = images.shape[-views.axes :]
            every = [drawn(sides, views.size, setting.passes, random) for _ in images]
            images = run.place(images)
            pairs: list[list[Pair]] = [[] for _ in images]
            for n in range(setting.passes):
                answers = [
                    run.answer(
                        torch.stack([window(x, own[n][end], views.size) for x, own in zip(images, every, strict=True)])
                    )
                    for end in range(2)
                ]
                for index, own in enumerate(every):
                    part = shared(*own[n], sides, views.size)
                    pairs[index].append(Pair(index, own[n], part, (answers[0], answers[1])))
            yield from pairs
