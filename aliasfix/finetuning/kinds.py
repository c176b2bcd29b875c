"""What fine-tuning learns from each kind of output: how far two outputs are apart, and how well they agree."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AliasfixError
from ..families import family as families
from ..families.reading import OBJECTS, Objects, Output, feature_modules, read
from ..measure.average_precision import average_precision
from ..measure.iou import classes_of, label_map, mean_iou
from ..running import watching
from ..tracing.nested import tensors
from .distilling import distillation

Labels: TypeAlias = Tensor | list[Objects] | None
"""Classes (B,), masks (B, H, W), the objects in each image, or none."""
IGNORED = 255
"""The label of a mask's positions that do not count."""


@dataclass(frozen=True)
class Said:
    """What a network says of B images.

    Args:
        maps: tensors (B, …) that can be distilled: logits, scores, values or feature maps.
        objects: of each image, where it finds any.
        loss: its own for the labels given, where it computes one.
    """

    maps: tuple[Tensor, ...]
    objects: Sequence[Objects] = ()
    loss: Tensor | None = None


class Logits:
    """Of a classifier: (B, classes)."""

    trains, sees_classes = True, True
    """Whether the model is in training mode while it is trained; whether its outputs are classes of whole images."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def said(self, model: nn.Module, images: Tensor, labels: Labels = None) -> Said:
        """What a network says of images, with gradients where they are on."""
        return Said(read(model, model(images), images, self.output, values=False).maps)

    def apart(self, found: Said, wanted: Said, temperature: float) -> Tensor:
        """(B,): the distance that distillation lowers."""
        return distillation(found.maps[0], wanted.maps[0], temperature)

    def together(self, one: Said, other: Said) -> Tensor:
        """(B,): the distance between what is said of the same images at two shifts."""
        return (self.apart(one, other, 1.0) + self.apart(other, one, 1.0)) / 2

    def seen(self, said: Said, offsets: Tensor, reach: int, sides: Sequence[int]) -> Said:
        """What is said of the middle of each image, which was moved by its own offset (B, 2); logits as they are."""
        return said

    def labelled(self, found: Said, labels: Any) -> Tensor:
        """(B,): the loss of the labels."""
        losses: Tensor = F.cross_entropy(found.maps[0], labels, reduction="none")
        return losses

    def right(self, found: Said, labels: Any) -> Tensor:
        """(B,), in [0, 1]: how well the labels are met."""
        hits: Tensor = found.maps[0].argmax(1) == labels
        return hits.float()

    def agreement(self, found: Said, wanted: Said) -> Tensor:
        """(B,), in [0, 1]: how well two networks agree; nan where only their distance says."""
        return (found.maps[0].argmax(1) == wanted.maps[0].argmax(1)).float()


class Maps(Logits):
    """Of values at every position: their distances are shares of the variance of what is wanted."""

    sees_classes = False

    def apart(self, found: Said, wanted: Said, temperature: float) -> Tensor:
        """(B,): the squared difference over the variance, the mean over the maps."""
        pairs = zip(found.maps, wanted.maps, strict=True)
        each = [(a - b).square().flatten(1).mean(1) / b.detach().var().clamp_min(1e-12) for a, b in pairs]
        return torch.stack(each).mean(0)

    def seen(self, said: Said, offsets: Tensor, reach: int, sides: Sequence[int]) -> Said:
        """Every map where it shows the middle of the image: between its positions it is interpolated."""
        return Said(tuple(middle(one, offsets, reach, sides) for one in said.maps), said.objects, said.loss)

    def labelled(self, found: Said, labels: Any) -> Tensor:
        """Refuse labels.

        Raises:
            AliasfixError: values have no labels here.
        """
        raise AliasfixError("values are learnt from the original alone: give distillation=1")

    def agreement(self, found: Said, wanted: Said) -> Tensor:
        """(B,) of nan: values are more or less apart."""
        return torch.full((len(found.maps[0]),), torch.nan, device=found.maps[0].device)


class LabelMaps(Maps):
    """Of scores (B, classes, h, w); of one channel, positive is the class."""

    def apart(self, found: Said, wanted: Said, temperature: float) -> Tensor:
        """(B,): the divergence at a position, the mean over the positions."""
        return distillation(_scores(found), _scores(wanted), temperature).flatten(1).mean(1)

    def labelled(self, found: Said, labels: Any) -> Tensor:
        """(B,): the cross-entropy of masks (B, H, W), in their size."""
        scores = F.interpolate(_scores(found), size=labels.shape[-2:], mode="bilinear")
        losses = F.cross_entropy(scores, labels, reduction="none", ignore_index=IGNORED)
        counted: Tensor = (labels != IGNORED).flatten(1).sum(1)
        return losses.flatten(1).sum(1) / counted.clamp_min(1)

    def right(self, found: Said, labels: Any) -> Tensor:
        """(B,): the mean IoU with the mask."""
        scores = F.interpolate(_scores(found), size=labels.shape[-2:], mode="bilinear")
        return self._iou(label_map(scores), labels, classes_of(scores), IGNORED)

    def agreement(self, found: Said, wanted: Said) -> Tensor:
        """(B,): the mean IoU of the label maps."""
        return self._iou(label_map(found.maps[0]), label_map(wanted.maps[0]), classes_of(found.maps[0]), None)

    def _iou(self, found: Tensor, wanted: Tensor, classes: int, ignore: int | None) -> Tensor:
        ious = [mean_iou(a, b, classes, ignore) for a, b in zip(found, wanted, strict=True)]
        return torch.tensor(ious, device=found.device)


class Features(Maps):
    """Of a network that finds objects: what is distilled are the maps of its backbone and neck.

    Without labels it is in evaluation mode, since in training mode it wants them. With them it returns its own losses.
    """

    trains = False

    def __init__(self, output: Output, paths: Sequence[str]) -> None:
        super().__init__(output)
        self.paths = paths

    def said(self, model: nn.Module, images: Tensor, labels: Labels = None) -> Said:
        """The maps, and the losses of the labels in training mode, else the objects."""
        maps: list[Tensor] = []

        def keep(path: str, module: nn.Module, args: Any, output: Any) -> None:
            maps.extend(one.float() for one in tensors(output) if one.is_floating_point() and one.ndim > 2)

        family = families.of(model)
        steady = contextlib.nullcontext() if family is None else family.steady(model)
        with steady, watching([(path, model.get_submodule(path)) for path in self.paths], keep):
            result = model(images, labels) if model.training else model(images)
        if not model.training:
            return Said(tuple(maps), read(model, result, images, self.output, values=False).objects)
        if not isinstance(result, Mapping):
            raise AliasfixError(
                f"{type(model).__name__} returned a {type(result).__name__} for images and targets, not a dict of "
                "losses: learn without labels (distillation=1)"
            )
        return Said(tuple(maps), loss=torch.stack([loss.sum() for loss in result.values()]).sum())

    def labelled(self, found: Said, labels: Any) -> Tensor:
        """(B,): the network's own loss; 0 in evaluation mode, where it computes none."""
        count, zero = len(found.maps[0]), found.maps[0].new_zeros(())
        return (zero if found.loss is None else found.loss).expand(count)

    def right(self, found: Said, labels: Any) -> Tensor:
        """(B,): the AP against the objects given; 1 where there are none and none is found."""
        return self._precision(found.objects, [one | {"scores": torch.ones(len(one["labels"]))} for one in labels])

    def agreement(self, found: Said, wanted: Said) -> Tensor:
        """(B,): the AP against the original's objects."""
        return self._precision(found.objects, wanted.objects)

    def _precision(self, found: Sequence[Objects], wanted: Sequence[Objects]) -> Tensor:
        values = [average_precision([a], [b]) for a, b in zip(found, wanted, strict=True)]
        return torch.tensor(values).nan_to_num(1.0)


def of(model: nn.Module, images: Tensor, labels: Labels, output: Output) -> Logits:
    """What a network's output is learnt as, told from what it says of images; it is in evaluation mode.

    Maps of which nobody said the kind are scores where the labels are masks.

    Raises:
        AliasfixError: the output cannot be read.
    """
    answer = read(model, model(images), images, output)
    if answer.kind in OBJECTS:
        return Features(output, feature_modules(model, output))
    if answer.kind == "logits":
        return Logits(output)
    masks = isinstance(labels, Tensor) and labels.ndim > 1
    scores = answer.kind == "label map" or (answer.kind is None and masks)
    return LabelMaps(output) if scores else Maps(output)


def middle(maps: Tensor, offsets: Tensor, reach: int, sides: Sequence[int]) -> Tensor:
    """The middle of images in the maps (B, C, h, w) of the same images, each moved by its own offset.

    Args:
        maps: of the moved images.
        offsets: (B, 2), whole pixels down and to the right, in −reach … reach.
        reach: pixels at each border that are left out: what a move may bring in.
        sides: of the images, in pixels.

    >>> image = torch.arange(8.0).repeat(8, 1)[None, None]
    >>> middle(image.roll(1, 3), torch.tensor([[0, 1]]), 2, (8, 8))[0, 0, 0]
    tensor([2., 3., 4., 5.])
    """
    axes = []
    for side, size, offset in zip(sides, maps.shape[-2:], offsets.to(maps).unbind(1), strict=True):
        count = max(1, (side - 2 * reach) * size // side)
        places = reach + (torch.arange(count, device=maps.device) + 0.5) * (side - 2 * reach) / count
        axes.append(2 * (places + offset[:, None]) / side - 1)
    rows, columns = axes[0][:, :, None], axes[1][:, None, :]
    shape = (len(maps), rows.shape[1], columns.shape[2])
    grid = torch.stack([columns.expand(shape), rows.expand(shape)], 3)
    return F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def _scores(said: Said) -> Tensor:
    """(B, classes, h, w): of one channel, the scores of not and of it."""
    scores = said.maps[0]
    return scores if scores.shape[1] > 1 else torch.cat([torch.zeros_like(scores), scores], 1)
