"""What the classes of a network are called."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def imagenet_names(model: nn.Module, classes: int) -> Mapping[int, str]:
    """The first name of each ImageNet class, for a model of timm's or torchvision's with as many; else empty.

    >>> imagenet_names(nn.Linear(1, 1000), 1000)
    {}
    """
    if not hasattr(model, "pretrained_cfg") and not type(model).__module__.startswith("torchvision.models."):
        return {}
    try:
        from timm.data import ImageNetInfo, infer_imagenet_subset
    except ImportError:
        return {}
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return {}
    return {index: text.split(",")[0] for index, text in enumerate(ImageNetInfo(subset).label_descriptions())}
