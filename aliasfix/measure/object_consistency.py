"""How well the objects found in two shifted crops agree where both see the image."""

from __future__ import annotations

from torch import Tensor

from aliasfix.measure.average_precision import average_precision, on_image
from aliasfix.measure.metric import Metric
from aliasfix.measure.subject import Subject
from aliasfix.measure.windows import Pair, agreement


def object_consistency(subject: Subject) -> Tensor:
    """Mean average instance segmentation consistency (mAISC), of boxes where there are no masks.

    Two crops of each image at random offsets, or two circular shifts where it has no margin. The objects found in both
    are moved to their places on the image and cut to the part that both see; the AP of those of the second crop against
    those of the first is the value.

    Returns:
        (I,), in [0, 1]; 1 where the objects move with the image, nan where neither crop has any.

    Raises:
        AliasfixError: torchmetrics or pycocotools is not installed.

    Source: Zou et al., "Delving Deeper into Anti-aliasing in ConvNets", BMVC 2020, section 4.2.
    """

    def precision(pair: Pair) -> float:
        one, other = (
            on_image(answer.objects[pair.index], corner, pair.part)
            for answer, corner in zip(pair.answers, pair.corners, strict=True)
        )
        return average_precision([other], [one])

    return agreement(subject, "object consistency", precision)


MAISC = Metric(
    "maisc",
    "object consistency (mAISC): objects of two shifted crops agree",
    "higher",
    object_consistency,
    needs=("boxes",),
    light=True,
    order=92,
)
