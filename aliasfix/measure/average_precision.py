"""The average precision of the objects found in images against others, by torchmetrics and pycocotools."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aliasfix.families.reading import Objects
from aliasfix.measure.iou import needed


def average_precision(found: Sequence[Objects], wanted: Sequence[Objects]) -> float:
    """COCO's AP: the mean over classes and the IoUs 0.5, 0.55, … 0.95 of the objects found against those wanted.

    Of masks where both have them, else of boxes. What counts as wanted are all objects there, whatever their score.

    Args:
        found: the objects in each image: ``boxes`` (n, 4), ``scores`` (n,), ``labels`` (n,), maybe ``masks``.
        wanted: the same, whose scores do not count.

    Returns:
        In [0, 1]; nan where there are no objects at all, 0 where they are only found.

    Raises:
        AliasfixError: torchmetrics or pycocotools is not installed.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and its evaluation code.

    >>> one = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "scores": torch.ones(1), "labels": torch.ones(1).long()}
    >>> round(average_precision([one], [one]), 3)
    1.0
    >>> round(average_precision([one], [one | {"boxes": one["boxes"] + 2}]), 3)
    0.0
    """
    if not any(len(one["boxes"]) for one in wanted):
        return 0.0 if any(len(one["boxes"]) for one in found) else torch.nan
    segmented = all("masks" in one for one in (*found, *wanted))
    needed("pycocotools.coco")
    kind = "segm" if segmented else "bbox"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that more than a hundred objects are found in an image
        metric = needed("torchmetrics.detection").MeanAveragePrecision(iou_type=kind)
        metric.update([_plain(one, kind) for one in found], [_plain(one, kind) for one in wanted])
        values: Mapping[str, Tensor] = metric.compute()
    return float(values["map"])


def _plain(one: Objects, kind: str) -> dict[str, Tensor]:
    """The fields that count, on the CPU."""
    kept = {"scores": one["scores"], "labels": one["labels"].long()}
    if kind == "bbox":
        return {key: value.detach().cpu() for key, value in (kept | {"boxes": one["boxes"].float()}).items()}
    masks = one["masks"]
    masks = masks[:, 0] if masks.ndim == 4 else masks
    kept["masks"] = masks > 0.5 if masks.is_floating_point() else masks.bool()
    return {key: value.detach().cpu() for key, value in kept.items()}


def placed(one: Objects, corner: Sequence[int]) -> dict[str, Tensor]:
    """The objects that a window saw, without their masks, at their places on the image.

    Args:
        one: in the window's pixels.
        corner: of the window, its first row and column.
    """
    step = one["boxes"].new_tensor([corner[1], corner[0]]).float()
    moved = {"boxes": one["boxes"].float() + step.repeat(2), "scores": one["scores"], "labels": one["labels"]}
    if "keypoints" in one:
        moved["keypoints"] = one["keypoints"].clone().float()
        moved["keypoints"][..., :2] += step
    return moved


def on_image(one: Objects, corner: Sequence[int], part: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """The same, and their masks, cut to a part of the image; those beyond it are left out.

    Args:
        one: in the window's pixels.
        corner: of the window, its first row and column.
        part: first and last row and column of the part of the image that counts.
    """
    moved = placed(one, corner)
    (top, bottom), (left, right) = part
    low, high = moved["boxes"].new_tensor([left, top] * 2), moved["boxes"].new_tensor([right, bottom] * 2)
    moved["boxes"] = torch.minimum(torch.maximum(moved["boxes"], low), high)
    if "masks" in one:
        rows, columns = slice(top - corner[0], bottom - corner[0]), slice(left - corner[1], right - corner[1])
        moved["masks"] = one["masks"][..., rows, columns]
    there = ((moved["boxes"][:, 2:] - moved["boxes"][:, :2]) >= 1).all(1)
    return {key: value[there] for key, value in moved.items()}
