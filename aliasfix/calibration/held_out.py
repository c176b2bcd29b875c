"""The images of a calibration: those that it is fitted on, and two views of those that it is judged by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images
from aliasfix.images.known import Given
from aliasfix.images.views import Views
from aliasfix.measure.overlap import Corner, window

FEWEST, MOST = 8, 256
_EVERY = 4  # one in so many is held out
_FURTHEST = 8  # pixels between the two views of an image


@dataclass(frozen=True)
class Split:
    """Images in batches of bounded size.

    Args:
        fit: (B, C, size, size) each; signals are (B, C, size) or (B, size).
        views: the centres of the images held out, and the same moved by some pixels.
        pairs: where both begin on each of them.
        sides: of the images.
        size: of the views.
        images, held_out: how many.
        notes: for the reader.
        labels: of those of ``fit``, then of those held out; None without.
        prepared: how the images of a folder were prepared, in words.
    """

    fit: list[Tensor]
    views: tuple[list[Tensor], list[Tensor]]
    pairs: Sequence[tuple[Corner, Corner]]
    sides: Sequence[int]
    size: int
    images: int
    held_out: int
    notes: tuple[str, ...]
    labels: Tensor | None = None
    prepared: str | None = None


def split(
    images: Images,
    model: nn.Module,
    size: int | None,
    batch_size: int,
    preprocessing: Given = None,
    seed: int = 0,
) -> Split:
    """Hold every fourth image out.

    Raises:
        AliasfixError: fewer than eight images, images that are too small or unlike in shape, or values that are not
            finite.
    """
    if batch_size < 2:
        raise AliasfixError(f"batch_size must be 2 or more, not {batch_size}")
    views = Views(images, model, size, preprocessing=preprocessing, most=MOST)
    items = list(itertools.islice(views, MOST))
    whole = [item[0] if isinstance(item, tuple) else item for item in items]
    labels = torch.tensor([item[1] for item in items]) if views.labelled else None
    if len(whole) < FEWEST:
        raise AliasfixError(f"{len(whole)} images are too few to calibrate on: give {FEWEST} or more, better 64 to 256")
    for number, image in enumerate(whole):
        if not image.isfinite().all():
            raise AliasfixError(f"{views.name(number)} holds values that are not finite")
        if image.shape != whole[0].shape:
            raise AliasfixError(f"{views.name(number)} is {tuple(image.shape)}, the first {tuple(whole[0].shape)}")
    random = torch.Generator().manual_seed(seed)
    sides = whole[0].shape[-views.axes :]
    centre = [(side - views.size) // 2 for side in sides]
    out = whole[_EVERY - 1 :: _EVERY]
    order = sorted(range(len(whole)), key=lambda number: number % _EVERY == _EVERY - 1)
    fit = [whole[number] for number in order[: len(whole) - len(out)]]
    moved = [_moved(centre, views.margin, random) for _ in out]
    return Split(
        _batches([window(image, centre, views.size) for image in fit], batch_size),
        (
            _batches([window(image, centre, views.size) for image in out], batch_size),
            _batches([window(image, to, views.size) for image, to in zip(out, moved, strict=True)], batch_size),
        ),
        [(centre, to) for to in moved],
        sides,
        views.size,
        len(fit),
        len(out),
        tuple(views.notes),
        None if labels is None else labels[order],
        None if views.prepared is None else str(views.prepared),
    )


def _moved(centre: list[int], margin: int, random: torch.Generator) -> list[int]:
    """A corner up to eight pixels from the centre on each axis, within the margin where there is one."""
    reach = min(_FURTHEST, margin // 2) if margin else _FURTHEST
    return [c + int(torch.randint(-reach, reach + 1, (), generator=random)) for c in centre]


def _batches(images: list[Tensor], batch_size: int) -> list[Tensor]:
    return [torch.stack(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
