"""Whatever holds images, as batches of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.families.layout import axes_of_one
from aliasfix.images.folder import ImageFolder

Images: TypeAlias = str | Path | Iterable[Any]
"""A folder's path, or an iterable of (C, H, W) or (B, C, H, W) tensors, alone or paired with label(s).

Inputs may be signals, (T,) or (C, T), and volumes, (C, D, H, W), too. A tensor's first axis is the batch.
"""


class Batch(NamedTuple):
    """Inputs of one size, and their labels, (B,), where there are any.

    Images are (B, C, H, W), signals (B, T) or (B, C, T), volumes (B, C, D, H, W).
    """

    images: Tensor
    labels: Tensor | None


class Inputs:
    """Inputs whose tensors are told apart from batches of them by the model they are for.

    Args:
        images: an iterable of tensors.
        model: what they are given to.

    >>> signals = Inputs([torch.zeros(2, 8), torch.zeros(3, 2, 8)], torch.nn.Conv1d(2, 1, 3))
    >>> [tuple(one.images.shape) for one in batches(signals, 4)]
    [(4, 2, 8)]
    """

    def __init__(self, images: Iterable[Any], model: object) -> None:
        self._images, self._model = images, model
        whole = isinstance(images, torch.utils.data.DataLoader) and images.batch_size is not None
        self._one = images.ndim - 1 if isinstance(images, Tensor) else None
        self._are_batches = whole

    def __iter__(self) -> Iterator[Any]:
        return iter(self._images)

    def axes_of_one(self, dims: int) -> int:
        """How many axes one input has, of a tensor that has so many."""
        return axes_of_one(self._model, dims, self._are_batches) if self._one is None else self._one


def single(dims: int) -> int:
    """Every tensor is one input: an ``axes_of_one`` for what `batches` is given."""
    return dims


def load(images: Images, side: int, model: object = None) -> Iterable[Any]:
    """The images of a folder, `side` x `side` pixels and normalised as for ImageNet, or what was given.

    A measure alone knows of no preprocessing: give it an `ImageFolder` with that of the network.
    """
    if isinstance(images, str | Path):
        return ImageFolder(images, size=side, resize=max(256, side))
    known = model is None or isinstance(images, ImageFolder) or hasattr(images, "axes_of_one")
    return images if known or iter(images) is images else Inputs(images, model)


def batches(images: Iterable[Any], batch_size: int, *, labels: bool = True) -> Iterator[Batch]:
    """Regroup images of equal size, in order, into batches of at most `batch_size`.

    With `labels=False` whatever comes with an image (a label, a mask, a target) is ignored.

    Raises:
        AliasfixError: No image at all; something that is not a floating-point image; labels that do not match
            the images.
    """
    if batch_size < 1:
        raise AliasfixError(f"batch_size must be 1 or more, not {batch_size}")
    held: list[tuple[Tensor, int | None]] = []
    labelled = None
    for image, label in _single(images, labels, getattr(images, "axes_of_one", lambda dims: 3)):
        if labelled is None:
            labelled = label is not None
        elif labelled != (label is not None):
            raise AliasfixError("label mismatch: some images have a label and others none")
        if held and (len(held) == batch_size or held[0][0].shape != image.shape):
            yield _stack(held)
            held = []
        held.append((image, label))
    if not held:
        raise AliasfixError("there are no images: the iterable is empty (a generator can be used only once)")
    yield _stack(held)


def _stack(held: list[tuple[Tensor, int | None]]) -> Batch:
    labels = [label for _, label in held if label is not None]
    return Batch(torch.stack([image for image, _ in held]), torch.tensor(labels) if labels else None)


def _single(images: Iterable[Any], labels: bool, axes: Callable[[int], int]) -> Iterator[tuple[Tensor, int | None]]:
    for item in images:
        image, *rest = item if isinstance(item, tuple | list) and item else (item,)
        one = axes(image.ndim) if isinstance(image, Tensor) else 0
        if not isinstance(image, Tensor) or image.ndim not in (one, one + 1) or not image.ndim:
            raise AliasfixError(
                "each item must be a tensor (C, H, W) or (B, C, H, W), or a pair of it and its label(s); got "
                + (
                    f"a tensor of shape {tuple(image.shape)}"
                    if isinstance(image, Tensor)
                    else f"a {type(image).__name__}"
                )
            )
        if not image.is_floating_point():
            raise AliasfixError(
                f"images are {image.dtype}: give floats, scaled and normalised as the model was trained"
            )
        batch = image if image.ndim > one else image[None]
        yield from zip(
            batch,
            _indices(rest, len(batch)) if labels and rest and rest != [None] else [None] * len(batch),
            strict=True,
        )


def _indices(rest: list[Any], count: int) -> list[int]:
    try:
        (label,) = rest
        indices: list[int] = torch.as_tensor(label).long().reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        raise AliasfixError(f"label mismatch: expected class indices beside the images, got {rest!r:.80}") from None
    if len(indices) != count:
        raise AliasfixError(f"label mismatch: {count} image(s) with {len(indices)} labels")
    return indices


def check_labels(images: Iterable[Any], labels: Tensor, classes: int) -> None:
    """Refuse labels that cannot be indices into `classes` logits.

    Raises:
        AliasfixError: A label out of range, or as many class folders as the model has no outputs.
    """
    if isinstance(images, ImageFolder) and images.classes not in (None, classes):
        raise AliasfixError(
            f"label mismatch: {images.root} has {images.classes} class folders, the model {classes} classes: "
            f"pass ImageFolder(root, class_to_idx=...), or labelled=False to measure without labels"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise AliasfixError(f"label mismatch: labels are {low} to {high} and the model has {classes} classes")
