"""Families of models that need more than images in training mode.

A family is an entry in ``FAMILIES``. No other file names these models.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """Models that are called in the same way.

    Args:
        classes: the classes, as ``module.Class``, so that their library need not be imported. Subclasses belong, too.
        finds: whether the operations that run depend on the objects found in the images, not on shapes alone.
        targets: makes up the arguments that training needs after the images; none if the input has them.
        steady: a context in which training makes the choices of evaluation, where it would make random ones.
    """

    classes: tuple[str, ...]
    finds: bool
    targets: Callable[[nn.Module, Inputs], tuple[Any, ...]]
    steady: Callable[[nn.Module], AbstractContextManager[None]]


def of(model: nn.Module) -> Family | None:
    """Return the family of a model, None if it belongs to none.

    >>> of(nn.Sequential()) is None
    True
    """
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    return next((family for family in FAMILIES if not names.isdisjoint(family.classes)), None)


# -- the detectors of torchvision ----------------------------------------------------------------------------


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
FAMILIES = (Family(tuple(f"torchvision.models.detection.{name}" for name in _DETECTORS), True, _objects, _one_size),)
