"""The networks of ultralytics, which take images in [0, 1]: boxes as they are before and after suppression.

``DetectionModel`` and its kin return (B, 4 + classes + more, anchors) with the centre, width and height of each box in
pixels, or end to end (B, n, 6 + more) with its corners, score and class.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .family import Family

SURE, OVERLAP = 0.25, 0.7
"""The score from which on a box is taken, and the IoU from which on it is the same as a better one; as ultralytics has
it when it predicts."""


def _features(model: nn.Module) -> Sequence[str]:
    """The layers that the head reads."""
    layers: Any = model.model
    return [f"model.{index}" for index in layers[-1].f]


def _objects(model: nn.Module, result: Any, images: Tensor) -> list[dict[str, Tensor]]:
    while isinstance(result, tuple | list):
        result = result[0]
    head: Any = model.model[-1]  # type: ignore[index]  # a Sequential
    if getattr(head, "end2end", False):
        return [_named(one[:, :4], one[:, 4], one[:, 5].long(), one[:, 6:], head) for one in result]
    found = []
    for one in result.mT:
        scores, labels = one[:, 4 : 4 + head.nc].max(1)
        centre, half = one[:, :2], one[:, 2:4] / 2
        corners = torch.cat([centre - half, centre + half], 1)
        kept = _suppressed(corners, scores, labels)
        found.append(_named(corners[kept], scores[kept], labels[kept], one[kept, 4 + head.nc :], head))
    return found


def _suppressed(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """The boxes that are sure and not the same as a better one, the best first."""
    from torchvision.ops import batched_nms

    sure = (scores > SURE).nonzero()[:, 0]
    kept: Tensor = sure[batched_nms(boxes[sure], scores[sure], labels[sure], OVERLAP)]
    return kept


def _named(boxes: Tensor, scores: Tensor, labels: Tensor, more: Tensor, head: Any) -> dict[str, Tensor]:
    sure = scores > SURE
    found = {"boxes": boxes[sure], "scores": scores[sure], "labels": labels[sure]}
    if hasattr(head, "kpt_shape"):
        found["keypoints"] = more[sure].reshape(-1, *head.kpt_shape)
    return found


def _classes(model: nn.Module, result: Any, images: Tensor) -> Any:
    """The logits, which stand behind the probabilities."""
    return result[1] if isinstance(result, tuple | list) else result


_IMAGES = {"mean": (0.0,), "std": (1.0,)}
FAMILIES = (
    Family(
        "the classifiers of ultralytics",
        ("ultralytics.nn.tasks.ClassificationModel",),
        "logits",
        _classes,
        images=_IMAGES,
    ),
    Family(
        "the pose networks of ultralytics",
        ("ultralytics.nn.tasks.PoseModel",),
        "keypoints",
        _objects,
        _features,
        images=_IMAGES,
    ),
    Family(
        "the detectors of ultralytics",
        ("ultralytics.nn.tasks.DetectionModel",),
        "boxes",
        _objects,
        _features,
        images=_IMAGES,
    ),
)
