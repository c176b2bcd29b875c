"""How much the objects found jump as the camera pans by one pixel a frame: boxes, scores and keypoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from aliasfix.families.reading import Objects
from aliasfix.images.inputs import batches
from aliasfix.images.views import thumbnail
from aliasfix.measure.average_precision import placed
from aliasfix.measure.drawing import Drawing
from aliasfix.measure.metric import Metric
from aliasfix.measure.overlap import shared, window
from aliasfix.measure.running import running
from aliasfix.measure.strip import SIDE, strip
from aliasfix.measure.subject import Subject

if TYPE_CHECKING:
    from aliasfix.comparison.result import Comparison

SAME = 0.5
"""IoU from which on two boxes of one class are one object."""
STEPS = 16
"""Frames of a pan, at most as many as the setting has shifts along the diagonal."""


@dataclass(frozen=True)
class Track:
    """One object of the first frame, followed through the pan.

    Args:
        boxes: (N, 4), at their places on the image; nan in a frame where it is not found.
        scores: (N,), 0 where it is not found.
        points: (N, K, 2), or None.
    """

    boxes: Tensor
    scores: Tensor
    points: Tensor | None = None


@dataclass(frozen=True)
class Pan:
    """One image as the window moves to the right, a pixel a frame: the objects found, and those followed.

    Args:
        frames: the objects of each frame, at their places on the image.
        tracks: those of the first frame that the whole pan sees.
        corners: where each frame begins on the image.
        size: of a frame, in pixels.
        pictures: of the frames, of the first image alone.
    """

    frames: Sequence[Objects]
    tracks: Sequence[Track]
    corners: Sequence[tuple[int, int]]
    size: int
    pictures: Sequence[Image.Image] = ()


def panned(subject: Subject) -> list[Pan]:
    """Pan over every image; call it as ``subject.once(panned)``."""
    setting, views = subject.setting, subject.views
    steps, found = max(2, min(STEPS, setting.diagonal, views.margin or STEPS)), list[Pan]()
    with running(subject.model, setting.output, "pan") as run:
        for images, _ in batches(views, 1, labels=False):
            image, sides = run.place(images)[0], images.shape[-2:]
            corners = [((sides[0] - views.size) // 2, left) for left in range(steps)]
            seen: list[Objects] = []
            for start in range(0, steps, setting.batch_size):
                part = corners[start : start + setting.batch_size]
                seen += run.answer(torch.stack([window(image, corner, views.size) for corner in part])).objects
            both = shared(corners[0], corners[-1], sides, views.size)
            frames = [placed(one, corner) for one, corner in zip(seen, corners, strict=True)]
            shown = [] if found else [thumbnail(window(image, corner, views.size).cpu(), SIDE) for corner in corners]
            found.append(Pan(frames, follow(frames, both), corners, views.size, shown))
    return found


def follow(frames: Sequence[Objects], part: Sequence[tuple[int, int]] | None = None) -> list[Track]:
    """The objects of the first frame through all frames: in each, the box of their class that overlaps most.

    Args:
        frames: the objects of each frame, at their places on the image.
        part: first and last row and column of what all frames see: objects that reach beyond are not followed.

    >>> one = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "scores": torch.ones(1), "labels": torch.ones(1)}
    >>> moved = one | {"boxes": one["boxes"] + 1}
    >>> follow([one, moved])[0].boxes[1]
    tensor([1., 1., 9., 9.])
    """
    from torchvision.ops import box_iou

    tracks = []
    for index, label in enumerate(frames[0]["labels"].tolist()):
        box = frames[0]["boxes"][index].float().cpu()
        if part is not None and not _inside(box.tolist(), part):
            continue
        boxes, scores, points = [], [], []
        for frame in frames:
            there = (frame["labels"] == label).nonzero()[:, 0]
            overlap = box_iou(box[None], frame["boxes"][there].float().cpu())[0]
            best = int(overlap.argmax()) if len(overlap) and overlap.max() >= SAME else None
            where = None if best is None else int(there[best])
            if where is not None:
                box = frame["boxes"][where].float().cpu()
            boxes.append(torch.full((4,), torch.nan) if where is None else box)
            scores.append(torch.zeros(()) if where is None else frame["scores"][where].float().cpu())
            if "keypoints" in frame:
                own = frame["keypoints"]
                lost = torch.full((own.shape[1], 2), torch.nan)
                points.append(lost if where is None else own[where, :, :2].float().cpu())
        tracks.append(Track(torch.stack(boxes), torch.stack(scores), torch.stack(points) if points else None))
    return tracks


def _inside(box: Sequence[float], part: Sequence[tuple[int, int]]) -> bool:
    (top, bottom), (left, right) = part
    return left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def jumps(places: Tensor) -> Tensor:
    """The mean distance in pixels between the points (N, …, 2) of one frame and of the next; nan without any.

    >>> jumps(torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[3.0, 4.0]]]))
    tensor(2.5000)
    """
    return places.diff(dim=0).square().sum(-1).sqrt().nanmean()


def _of_tracks(subject: Subject, kind: str) -> Tensor:
    """(I,): the mean over the tracks of an image; nan without any."""
    values = []
    for pan in subject.once(panned):
        own = [_of_track(track, kind) for track in pan.tracks]
        values.append(torch.stack(own).nanmean() if own else torch.tensor(torch.nan))
    return torch.stack(values)


def _of_track(track: Track, kind: str) -> Tensor:
    if kind == "boxes":
        return jumps(track.boxes.view(-1, 2, 2))  # of two opposite corners
    if kind == "points":
        return torch.tensor(torch.nan) if track.points is None else jumps(track.points)
    return track.scores.std(correction=0) if kind == "scores" else (track.scores > 0).float().mean()


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the frames of a pan over the first image, with the boxes that each network finds."""
    pans = found.both(panned)
    if pans is None:
        return
    boxes = [[_in_frame(*pair) for pair in zip(of[0].frames, of[0].corners, strict=True)] for of in pans]
    yield strip("pan", "boxes", pans[0][0].pictures, boxes, pans[0][0].size, found.names)


def _in_frame(frame: Objects, corner: tuple[int, int]) -> Tensor:
    return frame["boxes"].cpu() - torch.tensor([corner[1], corner[0]] * 2)


BOX_JITTER = Metric(
    "box_jitter",
    "corners of the boxes jump from frame to frame of a pan",
    "lower",
    lambda subject: _of_tracks(subject, "boxes"),
    needs=("boxes",),
    share=False,
    unit=" px",
    order=96,
    figures=figures,
)
KEYPOINT_JITTER = Metric(
    "keypoint_jitter",
    "keypoints jump from frame to frame of a pan",
    "lower",
    lambda subject: _of_tracks(subject, "points"),
    needs=("keypoints",),
    share=False,
    unit=" px",
    order=97,
)
SCORE_VARIATION = Metric(
    "score_variation",
    "variation of an object's score over a pan",
    "lower",
    lambda subject: _of_tracks(subject, "scores"),
    needs=("boxes",),
    order=98,
)
FOUND_AGAIN = Metric(
    "found_again",
    "frames of a pan in which an object of the first is found again",
    "higher",
    lambda subject: _of_tracks(subject, "found"),
    needs=("boxes",),
    order=99,
)
