"""The images of a comparison: as often as asked, each with a margin to shift in where there is one."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.families.layout import shifted_axes
from aliasfix.images.cropping import centre
from aliasfix.images.folder import ImageFolder
from aliasfix.images.inputs import Images, batches, load, single
from aliasfix.images.known import Given, known, prepared
from aliasfix.images.prepared import Prepared
from aliasfix.text.progress import tell
from aliasfix.text.wording import printable
from aliasfix.tracing.example import configured_size

MARGIN, LEAST = 32, 8
"""Pixels around an image to shift it in where it has them, and those that are too few for that."""


class Views:
    """Images that can be iterated as often as asked, and what is known of them.

    Args:
        images: a folder, or a list, data loader or other iterable that can be iterated again.
        model: whose images they are: says how those of a folder are prepared, see `aliasfix.images.known`.
        size: side of the networks' input; None asks the model, or takes the images as they are.
        margin: pixels around it to crop in; by default what a folder's images are cropped by, 0 if that is little, or
            what the images have.
        preprocessing: what the user says of a folder's images.
        beside: another model of the same images.
        most: of a folder, take so many images at most, from all over it.

    Raises:
        AliasfixError: no such folder, no readable image, a generator, images that are too small, or a preprocessing of
            images that are no folder's.
    """

    def __init__(
        self,
        images: Images,
        model: nn.Module,
        size: int | None = None,
        margin: int | None = None,
        preprocessing: Given = None,
        beside: nn.Module | None = None,
        most: int | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.prepared: Prepared | None = None
        """How a folder's images are prepared."""
        # A tensor's names are of its axes, before torch 2.14.
        self._names: Sequence[str] | None = None if isinstance(images, Tensor) else getattr(images, "names", None)
        if isinstance(images, str | Path):
            self.prepared = prepared(model, preprocessing, size, beside)
            if beside is not None and known(model) and known(beside):
                other = prepared(beside, preprocessing, size)
                if other.differs(self.prepared):
                    self.notes.append(f"the second network was trained on other images than it is given here: {other}")
            images, self.size, self.margin = _folder(images, self.prepared, margin)
        elif preprocessing is not None:
            raise AliasfixError(
                "preprocessing= is of a folder's images, and these are no folder: prepare them yourself"
            )
        if isinstance(images, ImageFolder):
            images = copy.copy(images)  # files are left out of this one
            images.files = images.files[:: math.ceil(len(images.files) / (most or len(images.files)))]
            tell(f"images: {len(images.files)} in {images.root}" + (f", {self.prepared}" if self.prepared else ""))
            self.notes += images.checked()
            self._names = [printable(str(path.relative_to(images.root))) for path in images.files]
        elif iter(images) is images:
            raise AliasfixError("the images are a generator, which can be used only once: pass a list of them")
        self._images: Iterable[Any] = load(images, 0, model)
        self._fit(model, size, margin)
        self.labelled = next(iter(batches(self._images, 1))).labels is not None
        self.classes: Mapping[int, str] = {}
        """What classes are called, where that is known."""

    def _fit(self, model: nn.Module, size: int | None, margin: int | None) -> None:
        """Find the size and the margin that the first image has room for."""
        first = next(iter(batches(self._images, 1, labels=False))).images
        self.axes = min(2, shifted_axes(model, first.ndim - 1))
        """How many of an image's last axes are shifted: 2, or 1 of signals."""
        self.are_pictures = self.axes == 2 and first.ndim == 4
        """Whether they are (C, H, W), not signals or volumes."""
        shortest = min(first.shape[-self.axes :])
        if self.prepared is None or self.prepared.transform is not None:
            configured = configured_size(model)
            side = configured[-1] if configured and self.prepared is None else None
            self.size = size or (side if side and side <= shortest else shortest)
            self.margin = min(MARGIN, shortest - self.size) if margin is None else margin
        if self.size + self.margin > shortest:
            sides = "x".join(map(str, first.shape[-self.axes :]))
            raise AliasfixError(
                f"images of {sides} have no {self.size} + {self.margin} pixels: "
                f"give larger images, or a smaller size or margin"
            )

    def __iter__(self) -> Iterator[Any]:
        """Each image, (C, size + margin, size + margin), with its label where there are labels."""
        for image, label in self._pairs():
            yield image if label is None else (image, label)

    def _pairs(self) -> Iterator[tuple[Tensor, int | None]]:
        whole = self.size + self.margin
        with_labels = self.labelled if hasattr(self, "labelled") else True
        for number, (batch, labels) in enumerate(batches(self._images, 1, labels=with_labels)):
            if min(batch.shape[-self.axes :]) < whole:
                raise AliasfixError(
                    f"{self.name(number)} is {'x'.join(map(str, batch.shape[-self.axes :]))}, without {self.size} + "
                    f"{self.margin} pixels: leave it out, or give a smaller size or margin"
                )
            yield centre(batch[0], whole, self.axes), None if labels is None else int(labels[0])

    axes_of_one = staticmethod(single)

    def centre(self, images: Tensor) -> Tensor:
        """The central `size` x `size` of images."""
        return centre(images, self.size, self.axes)

    def centres(self, limit: int | None = None) -> Views.Centres:
        """The central `size` x `size` of the images, or of the first few, without labels."""
        return Views.Centres(self, limit)

    def pixels(self, targets: Sequence[int] | None = None) -> Views.Pixels:
        """The central `size` x `size` of a folder's images before normalisation, with the targets given or the labels.

        Raises:
            AliasfixError: the images are no folder's, or are given to a network of one channel.
        """
        return Views.Pixels(self, targets)

    def targeted(self, targets: Sequence[int]) -> Views.Targeted:
        """The images with other labels."""
        return Views.Targeted(self, targets)

    def name(self, index: int) -> str:
        """What to call an image."""
        return self._names[index] if self._names else f"image {index + 1}"

    def call_classes(self, names: Mapping[int, str]) -> None:
        """Take the names of the class folders where these give the labels, else those given."""
        own = self._images._index if isinstance(self._images, ImageFolder) else {}
        self.classes = {index: name for name, index in own.items()} if own else names

    def without_labels(self, why: str) -> None:
        """Go on without the labels, and say so."""
        self.labelled = False
        if isinstance(self._images, ImageFolder):
            self._images._index = {}
            self._images.classes = None
        self.notes.append(f"measured without labels: {why}")

    def fits(self, classes: int) -> str | None:
        """Why the folder's labels cannot be those of a model of that many classes."""
        folder = self._images
        if self.labelled and isinstance(folder, ImageFolder) and folder.classes not in (None, classes):
            return f"label mismatch: {folder.root} has {folder.classes} class folders, the model {classes} classes"
        return None

    class Centres:
        """The central crops."""

        axes_of_one = staticmethod(single)

        def __init__(self, views: Views, limit: int | None) -> None:
            self._views, self._limit = views, limit

        def __iter__(self) -> Iterator[Tensor]:
            for image, _ in itertools.islice(self._views._pairs(), self._limit):
                yield self._views.centre(image)

    class Pixels:
        """The central crops as the folder's files hold them, (3, size, size) uint8, each with a target."""

        def __init__(self, views: Views, targets: Sequence[int] | None) -> None:
            if not isinstance(views._images, ImageFolder) or views._images.prepared.channels == 1:
                raise AliasfixError("corruptions act on the pixels of colour images: give a folder of them")
            self._folder, self._size, self._targets = views._images, views.size, targets
            self.mean, self.std = self._folder.prepared.normalisation

        def __iter__(self) -> Iterator[tuple[Tensor, int]]:
            for number, (image, label) in enumerate(self._folder.pixels()):
                target = label if self._targets is None else self._targets[number]
                assert target is not None
                yield centre(image, self._size, 2), target

    class Targeted:
        """The images, each with the target given for it."""

        axes_of_one = staticmethod(single)

        def __init__(self, views: Views, targets: Sequence[int]) -> None:
            self._views, self._targets = views, targets

        def __iter__(self) -> Iterator[tuple[Tensor, int]]:
            for (image, _), target in zip(self._views._pairs(), self._targets, strict=True):
                yield image, target


def thumbnail(image: Tensor, side: int = 96) -> Image.Image:
    """A small picture of an image that was normalised in some way: its own range becomes 0 … 255.

    >>> import torch
    >>> thumbnail(torch.randn(3, 8, 8)).size
    (96, 96)
    """
    image = image.float().expand(3, -1, -1) if image.shape[0] == 1 else image[:3].float()
    low, high = image.amin(), image.amax()
    pixels = ((image - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0).contiguous()
    height, width = pixels.shape[:2]
    picture = Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist()))
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def _folder(root: str | Path, how: Prepared, margin: int | None) -> tuple[ImageFolder, int, int]:
    """The folder, the size of the network's input, and the margin around it."""
    room = how.resize - how.size
    margin = (room if room >= LEAST else 0) if margin is None else margin
    side = how.size + margin
    folder = ImageFolder(
        root, size=side, resize=max(how.resize, side), mean=how.mean, std=how.std, interpolation=how.interpolation,
        squash=how.squash, transform=how.transform, unreadable=how.unreadable, channels=how.channels,
    )  # fmt: skip
    return folder, how.size, margin
