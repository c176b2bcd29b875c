"""The detectors of torchvision: they take images in [0, 1], and in training the objects in them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .family import Family, Inputs, Kind


def _objects(model: nn.Module, inputs: Inputs) -> tuple[Any, ...]:
    """Return one object per image, with the fields that the heads of the model need."""
    args, kwargs = inputs
    if len(args) != 1 or kwargs:
        return ()
    heads = getattr(model, "roi_heads", None)
    masks = heads is not None and heads.has_mask()
    keypoints = heads.keypoint_predictor.kps_score_lowres.out_channels if heads and heads.has_keypoint() else 0
    return ([_object(image, masks, keypoints) for image in args[0]],)


def _object(image: Tensor, masks: bool, keypoints: int) -> dict[str, Tensor]:
    """Return an object of class 1 in the middle of an image."""
    height, width = image.shape[-2:]
    target = {
        "boxes": image.new_tensor([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]),
        "labels": torch.ones(1, dtype=torch.int64, device=image.device),
    }
    if masks:
        target["masks"] = torch.ones(1, height, width, dtype=torch.uint8, device=image.device)
    if keypoints:
        target["keypoints"] = image.new_tensor([width / 2, height / 2, 1]).repeat(1, keypoints, 1)
    return target


@contextlib.contextmanager
def _one_size(model: nn.Module) -> Iterator[None]:
    """Resize to the last of several sizes, as evaluation does; training picks one at random."""
    resize: Any = model.transform
    sizes = resize.min_size
    resize.min_size = sizes[-1:]
    try:
        yield
    finally:
        resize.min_size = sizes


_DETECTORS = ("generalized_rcnn.GeneralizedRCNN", "retinanet.RetinaNet", "fcos.FCOS", "ssd.SSD")
_CLASSES = tuple(f"torchvision.models.detection.{name}" for name in _DETECTORS)
_POSE = ("torchvision.models.detection.keypoint_rcnn.KeypointRCNN",)


def _family(name: str, classes: tuple[str, ...], kind: Kind) -> Family:
    images = {"mean": 0.0, "std": 1.0}  # it normalises them itself
    return Family(name, classes, kind, images=images, finds=True, targets=_objects, steady=_one_size)


FAMILIES = (
    _family("the keypoint detectors of torchvision", _POSE, "keypoints"),
    _family("the detectors of torchvision", _CLASSES, "boxes"),
)
