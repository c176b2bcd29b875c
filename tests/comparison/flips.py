"""How often the class changes from one shift along the diagonal to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from aliasfix.measure import Metric, Subject
from aliasfix.measure.drawing import Drawing, distribution
from aliasfix.measure.subject import along_diagonal

if TYPE_CHECKING:
    from aliasfix import Comparison


def flips(subject: Subject) -> Tensor:
    """Share of neighbouring shifts with different classes: (I,), in [0, 1]."""
    classes = subject.once(along_diagonal).top1  # (I, N)
    return (classes.diff(dim=1) != 0).float().mean(1)


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the distribution over the images."""
    if values := found.values.get("flips"):
        caption = "Share of neighbouring shifts with different classes, of every image: steadier is further left."
        yield distribution("flips", "How often the class flips", caption, values, found.names, "flips")


FLIPS = Metric(
    name="flips",
    title="class changes from one shift to the next",
    better="lower",
    measure=flips,
    needs=("logits",),
    figures=figures,
)
