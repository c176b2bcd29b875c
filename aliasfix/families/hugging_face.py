"""The vision models of transformers, by the task in the name of their class."""

from typing import Any

import torch
from torch import Tensor, nn

from .family import Family

SURE = 0.5
"""The score from which on an object is taken."""


def _objects(model: nn.Module, result: Any, images: Tensor) -> list[dict[str, Tensor]]:
    """The queries with a score: boxes from the centre, width and height as shares of the image.

    Where there is one logit more than classes, the last means nothing and they are softmaxed; else each is a sigmoid.
    """
    config: Any = model.config
    scores = result.logits.softmax(-1)[..., :-1] if result.logits.shape[-1] > config.num_labels else None
    best, labels = (result.logits.sigmoid() if scores is None else scores).max(-1)
    centre, half = result.pred_boxes[..., :2], result.pred_boxes[..., 2:] / 2
    height, width = images.shape[-2:]
    boxes = torch.cat([centre - half, centre + half], -1) * images.new_tensor([width, height] * 2)
    found = []
    for box, score, label in zip(boxes, best, labels, strict=True):
        sure = score > SURE
        found.append({"boxes": box[sure], "scores": score[sure], "labels": label[sure]})
    return found


def _logits(model: nn.Module, result: Any, images: Tensor) -> Any:
    return result.logits


FAMILIES = (
    Family("image classification of transformers", ("transformers*.*ForImageClassification*",), "logits", _logits),
    Family("semantic segmentation of transformers", ("transformers*.*ForSemanticSegmentation",), "label map", _logits),
    Family(
        "depth estimation of transformers",
        ("transformers*.*ForDepthEstimation",),
        "dense",
        lambda model, result, images: result.predicted_depth.reshape(
            len(images), -1, *result.predicted_depth.shape[-2:]
        ),
    ),
    Family("object detection of transformers", ("transformers*.*ForObjectDetection",), "boxes", _objects),
)
