"""The mean intersection over union of two label maps, by torchmetrics."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from torch import Tensor

from aliasfix.errors import AliasfixError


def needed(module: str) -> Any:
    """A module of the packages that measure tasks.

    Raises:
        AliasfixError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise AliasfixError(
            f'IoU and AP need {error.name}, which is not installed: pip install "aliasfix[tasks]"'
        ) from None


@functools.cache
def _jaccard() -> Any:
    return needed("torchmetrics.functional.classification").multiclass_jaccard_index


def mean_iou(one: Tensor, other: Tensor, classes: int, ignore: int | None = None) -> float:
    """The mean over the classes that are in either of two label maps of their intersection over their union.

    Args:
        one, other: (...), class indices of the same positions.
        classes: how many there are.
        ignore: the label of positions in ``other`` that do not count.

    Returns:
        In [0, 1]; 1 where the maps are equal.

    Raises:
        AliasfixError: torchmetrics is not installed.

    Source: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2015, section 2.3.

    >>> import torch
    >>> round(mean_iou(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), 3), 4)
    0.5833
    """
    share: Tensor = _jaccard()(
        one.flatten()[None].long(), other.flatten()[None].long(), num_classes=max(2, classes), ignore_index=ignore
    )
    return share.item()


def label_map(scores: Tensor) -> Tensor:
    """(B, ...): the class of each position of scores (B, classes, ...); of one channel, whether it is positive.

    >>> import torch
    >>> label_map(torch.tensor([[[-1.0, 2.0]]]))
    tensor([[0, 1]])
    """
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()


def classes_of(scores: Tensor) -> int:
    """How many classes a label map of scores (B, classes, ...) has: 2 of one channel."""
    return max(2, scores.shape[1])
