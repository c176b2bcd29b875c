"""How well the label maps of two shifted crops agree where both see the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from aliasfix.images.inputs import batches
from aliasfix.images.views import thumbnail
from aliasfix.measure.drawing import Drawing
from aliasfix.measure.iou import classes_of, label_map, mean_iou
from aliasfix.measure.metric import Metric
from aliasfix.measure.overlap import enlarged, seen, window
from aliasfix.measure.running import running
from aliasfix.measure.strip import SIDE, strip
from aliasfix.measure.subject import Subject
from aliasfix.measure.windows import Pair, agreement

if TYPE_CHECKING:
    from aliasfix.comparison.result import Comparison

FRAMES = 6
"""Of the pan that is drawn."""


def label_consistency(subject: Subject) -> Tensor:
    """Mean average semantic segmentation consistency (mASSC).

    Two crops of each image at random offsets, or two circular shifts where it has no margin: the mean IoU of their
    label maps on the part that both see. A label map of another size is brought to the crop's (nearest).

    Returns:
        (I,), in [0, 1]; 1 where the label map moves with the image.

    Raises:
        AliasfixError: torchmetrics is not installed.

    Source: Zou et al., "Delving Deeper into Anti-aliasing in ConvNets", BMVC 2020, section 4.3.
    """
    size, axes = subject.views.size, subject.views.axes

    def iou(pair: Pair) -> float:
        scores = [answer.tensor[pair.index][None] for answer in pair.answers]
        one, other = (
            seen(enlarged(label_map(own), size, axes), corner, pair.part)
            for own, corner in zip(scores, pair.corners, strict=True)
        )
        return mean_iou(one, other, classes_of(scores[0]))

    return agreement(subject, "label consistency", iou)


@dataclass(frozen=True)
class LabelPan:
    """The first image as the window moves to the right, a pixel a frame.

    Args:
        pictures: of the frames.
        labels: (size, size) of each frame.
        size: of a frame, in pixels.
    """

    pictures: Sequence[Image.Image]
    labels: Sequence[Tensor]
    size: int


def panned(subject: Subject) -> LabelPan | None:
    """Pan over the first image; None where it is no picture. Call it as ``subject.once(panned)``."""
    views = subject.views
    if not views.are_pictures:
        return None
    (image,) = next(iter(batches(views, 1, labels=False))).images
    top = (image.shape[-2] - views.size) // 2
    frames = [window(image, (top, left), views.size) for left in range(FRAMES)]
    with running(subject.model, subject.setting.output, "pan") as run:
        labels = [label_map(run(run.place(frame[None])))[0].cpu() for frame in frames]
    sizes = [enlarged(own, views.size, 2) for own in labels]
    return LabelPan([thumbnail(frame, SIDE) for frame in frames], sizes, views.size)


def _measured(subject: Subject) -> Tensor:
    subject.once(panned)
    return label_consistency(subject)


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the frames of a pan over the first image, with the label map of each network."""
    pans = found.both(panned)
    if pans is not None and (one := pans[0]) is not None and (other := pans[1]) is not None:
        yield strip("pan", "label maps", one.pictures, (one.labels, other.labels), one.size, found.names)


MASSC = Metric(
    "massc",
    "label consistency (mASSC): label maps of two shifted crops agree",
    "higher",
    _measured,
    needs=("label map",),
    order=91,
    figures=figures,
)
