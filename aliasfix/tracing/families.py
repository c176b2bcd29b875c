"""Families of models that images alone do not train: how one is told, and what it takes.

This is the one place that knows them. A family is an entry in ``FAMILIES``; whoever needs to know more of a family than
is said here adds a field.
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
    """Models that are called alike.

    Args:
        classes: as ``module.Class``: whoever has a model has imported them, aliasfix need not. Subclasses belong, too.
        finds: whether what runs depends on what is found in the images, so that their shapes alone do not tell it.
        targets: the arguments after the images that training needs, made up; none where they are among the inputs.
        steady: training does what evaluation does, where it would do something else by chance.
    """

    classes: tuple[str, ...]
    finds: bool
    targets: Callable[[nn.Module, Inputs], tuple[Any, ...]]
    steady: Callable[[nn.Module], AbstractContextManager[None]]


def of(model: nn.Module) -> Family | None:
    """The family that a model belongs to, None where it is not known.

    >>> of(nn.Sequential()) is None
    True
    """
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    return next((family for family in FAMILIES if not names.isdisjoint(family.classes)), None)


# -- the detectors of torchvision ----------------------------------------------------------------------------


def _objects(model: nn.Module, inputs: Inputs) -> tuple[Any, ...]:
    """One object for each image, in the form that the heads of the model learn from."""
    args, kwargs = inputs
    if len(args) != 1 or kwargs:
        return ()
    heads = getattr(model, "roi_heads", None)
    masks = heads is not None and heads.has_mask()
    keypoints = heads.keypoint_predictor.kps_score_lowres.out_channels if heads and heads.has_keypoint() else 0
    return ([_object(image, masks, keypoints) for image in args[0]],)


def _object(image: Tensor, masks: bool, keypoints: int) -> dict[str, Tensor]:
    """An object of class 1 that fills the middle of an image."""
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
    """Training resizes the images to one of several sizes, evaluation to the last of them."""
    resize: Any = model.transform
    sizes = resize.min_size
    resize.min_size = sizes[-1:]
    try:
        yield
    finally:
        resize.min_size = sizes


_DETECTORS = ("generalized_rcnn.GeneralizedRCNN", "retinanet.RetinaNet", "fcos.FCOS", "ssd.SSD")
FAMILIES = (Family(tuple(f"torchvision.models.detection.{name}" for name in _DETECTORS), True, _objects, _one_size),)
