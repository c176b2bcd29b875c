"""A folder of photographs as a stream of normalised images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.text.wording import listing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


class ImageFolder:
    """The images under a folder: `root/class/*.jpg`, labelled by class, or `root/*.jpg` without labels.

    Each is resized (shorter side to `resize`, bilinear), cropped to `size` x `size` at the centre and
    normalised, which is what torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` do. Iterating
    gives `(image, label)`, or `image` without labels, as often as asked; images that cannot be read are
    skipped and named in one warning at the end.

    Args:
        root: The folder.
        size: Side of the images, in pixels.
        resize: Length the shorter side is resized to first; `size` or more.
        mean: Per channel, subtracted from values in [0, 1].
        std: Per channel, divided by.
        class_to_idx: Index of each class folder in the model's output; by default the sorted folders are 0,
            1, ….
        labelled: False ignores the class folders' names.

    Raises:
        AliasfixError: No such folder, no image in it, or a class folder that `class_to_idx` lacks; on
            iterating, no readable image.

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
    ) -> None:
        self.root, self.size, self.resize = Path(root), size, resize
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        if not self.root.is_dir():
            raise AliasfixError(f"{self.root} is not a folder")
        if size > resize:
            raise AliasfixError(f"a crop of {size} does not fit images resized to {resize}: give resize={size} or more")
        self.files = _images(self.root)
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
                with Image.open(path) as file:
                    image = _square(file.convert("RGB"), self.resize, self.size)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                skipped.append(path)
                continue
            raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            yield raw.view(self.size, self.size, 3).permute(2, 0, 1), self.label(path)
        if skipped:
            warnings.warn(told(skipped, self.files, self.root), stacklevel=2)


def unreadable(files: Sequence[Path]) -> list[Path]:
    """Those that are no image, or are cut short. A JPEG is decoded at an eighth of its size, which is enough."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        readable = pool.map(_readable, files)
    return [path for path, fine in zip(files, readable, strict=True) if not fine]


def told(bad: Sequence[Path], files: Sequence[Path], root: str | Path) -> str:
    """Which of the images cannot be read.

    Raises:
        AliasfixError: none can.
    """
    message = f"{len(bad)} of {len(files)} images in {root} cannot be read"
    if len(bad) == len(files):
        raise AliasfixError(message)
    return f"{message} and were skipped: {listing([str(path.relative_to(root)) for path in sorted(bad)], 10)}"


def _readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.draft(None, (1, 1))
            image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _images(root: Path) -> list[Path]:
    files = (Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES)


def _square(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Shorter side to `resize`, then the centre `size` x `size`, rounded as torchvision rounds."""
    width, height = image.size
    short = min(width, height)
    image = image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))
