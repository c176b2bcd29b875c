"""A folder of photographs as a stream of normalised images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.reading import MAY_SKIP, SUFFIXES, Seen, UnreadableError, listed, look, read, told

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolder:
    """The images under a folder: `root/class/*.jpg`, labelled by class, or `root/*.jpg` without labels.

    Each is resized (shorter side to `resize`, bilinear), cropped to `size` x `size` at the centre and
    normalised, which is what torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` do. Iterating
    gives `(image, label)`, or `image` without labels, as often as asked; images that cannot be read are
    skipped and named in one warning at the end. How files of all kinds are read: `aliasfix.images.reading.read`.

    Args:
        root: The folder.
        size: Side of the images, in pixels.
        resize: Length the shorter side is resized to first; `size` or more.
        mean: Per channel, subtracted from values in [0, 1].
        std: Per channel, divided by.
        class_to_idx: Index of each class folder in the model's output; by default the sorted folders are 0,
            1, ….
        labelled: False ignores the class folders' names.
        unreadable: What becomes of images that cannot be read: `skip`, or `refuse` to go on.

    Raises:
        AliasfixError: No such folder, one that cannot be read, no image in it, or a class folder that
            `class_to_idx` lacks; on iterating, no readable image, or one that is not skipped.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> Image.new("RGB", (80, 60), "white").save(f"{folder.name}/white.png")
    >>> [tuple(image.shape) for image in ImageFolder(folder.name, size=32, resize=40)]
    [(3, 32, 32)]
    >>> folder.cleanup()
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 256,
        resize: int = 256,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        class_to_idx: Mapping[str, int] | None = None,
        labelled: bool = True,
        unreadable: str = "skip",
    ) -> None:
        self.root, self.size, self.resize = Path(root), size, resize
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        if not self.root.is_dir():
            raise AliasfixError(f"{self.root} is not a folder")
        if unreadable not in MAY_SKIP:
            raise AliasfixError(f"unreadable={unreadable!r}: choose one of {', '.join(MAY_SKIP)}")
        self.unreadable = unreadable
        if size > resize:
            raise AliasfixError(f"a crop of {size} does not fit images resized to {resize}: give resize={size} or more")
        self.files = listed(self.root)
        classes = sorted({path.relative_to(self.root).parts[0] for path in self.files if path.parent != self.root})
        self.classes: int | None = None
        """Number of class folders where they give the labels by their order, else None."""
        self._index: Mapping[str, int] = {}
        if classes:
            self.files = [path for path in self.files if path.parent != self.root]
            if labelled:
                self._index = class_to_idx or {name: n for n, name in enumerate(classes)}
                self.classes = None if class_to_idx else len(classes)
        if not self.files:
            raise AliasfixError(f"no image in {self.root}: looked for {', '.join(sorted(SUFFIXES))}")
        if self._index and (missing := [name for name in classes if name not in self._index]):
            raise AliasfixError(f"class_to_idx has no index for the folders {', '.join(missing)} in {self.root}")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, int]]:
        for pixels, label in self.pixels():
            image = (pixels / 255 - self.mean) / self.std
            yield image if label is None else (image, label)

    def label(self, path: Path) -> int | None:
        """The label of one of `files`, None without labels."""
        return self._index[path.relative_to(self.root).parts[0]] if self._index else None

    def pixels(self) -> Iterator[tuple[Tensor, int | None]]:
        """The images before normalisation, (3, size, size) uint8 in 0 … 255, each with its label or None."""
        skipped = []
        for path in self.files:
            try:
                image = _square(read(path), self.resize, self.size)
            except UnreadableError:
                skipped.append(path)
                if self.unreadable == "skip":
                    continue
                break
            raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            yield raw.view(self.size, self.size, 3).permute(2, 0, 1), self.label(path)
        for note in told(Seen(tuple(skipped)), self.files, self.root, self.unreadable):
            warnings.warn(note, stacklevel=2)

    def checked(self) -> list[str]:
        """Look into every file once, instead of on every pass, and leave out those that cannot be read.

        Returns:
            What there is to say of the images: those left out, and those of which the first frame is taken.

        Raises:
            AliasfixError: no image can be read, or some cannot and are not skipped.
        """
        seen = look(self.files)
        notes = told(seen, self.files, self.root, self.unreadable)
        bad = set(seen.unreadable)
        self.files = [path for path in self.files if path not in bad]
        return notes


def _square(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Shorter side to `resize`, then the centre `size` x `size`, rounded as torchvision rounds."""
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))
