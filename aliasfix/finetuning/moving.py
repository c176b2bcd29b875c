"""Move labels like the images that they are of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..families.reading import Objects
from .kinds import IGNORED, Labels


def moved(labels: Labels, offsets: Tensor, reach: int, sides: torch.Size) -> Labels:
    """The labels of images that were each moved to two places: those of all first places, then of all second ones.

    Classes stay. Where a mask has nothing to show it does not count. Boxes are cut at the image, and objects of which
    less than a pixel is left are left out.

    Args:
        labels: of B images.
        offsets: (2, B, 2), whole pixels down and to the right, in −reach … reach.
        reach: in pixels.
        sides: height and width of the images.
    """
    if labels is None:
        return None
    if isinstance(labels, list):
        ends = zip([*labels, *labels], offsets.flatten(0, 1).tolist(), strict=True)
        return [_objects(one, down, right, sides) for one, (down, right) in ends]
    if labels.ndim == 1:
        return labels.repeat(2)
    return _masks(labels.repeat(2, 1, 1), offsets.flatten(0, 1), reach, IGNORED)


def _masks(masks: Tensor, offsets: Tensor, reach: int, beyond: int) -> Tensor:
    """(B, H, W), each moved by its own offset (B, 2)."""
    height, width = masks.shape[-2:]
    padded = F.pad(masks, (reach,) * 4, value=beyond)
    corners = (reach - offsets).tolist()
    return torch.stack([mask[y : y + height, x : x + width] for mask, (y, x) in zip(padded, corners, strict=True)])


def _objects(one: Objects, down: int, right: int, sides: torch.Size) -> dict[str, Tensor]:
    """The objects of one image.

    >>> one = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "labels": torch.ones(1)}
    >>> _objects(one, 1, -2, torch.Size([8, 8]))["boxes"]
    tensor([[0., 1., 2., 5.]])
    """
    step = one["boxes"].new_tensor([right, down])
    boxes = (one["boxes"] + step.repeat(2)).clamp_min(0)
    boxes = torch.minimum(boxes, boxes.new_tensor([sides[1], sides[0]] * 2))
    made = dict(one) | {"boxes": boxes}
    if "keypoints" in one:
        made["keypoints"] = torch.cat([one["keypoints"][..., :2] + step, one["keypoints"][..., 2:]], -1)
    if "masks" in one and len(one["masks"]):
        reach = max(abs(down), abs(right))
        offsets = torch.tensor([[down, right]] * len(one["masks"]))
        made["masks"] = _masks(one["masks"], offsets, reach, 0)
    there = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    return {key: value[there] if len(value) == len(there) else value for key, value in made.items()}
