"""A folder of photographs as a stream of normalised images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.prepared import Prepared
from aliasfix.images.preprocessing import Preprocessing, Transform
from aliasfix.images.reading import SUFFIXES, Seen, UnreadableError, listed, look, read, told

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_KEPT = 2**28  # bytes of decoded images that are kept for the next pass


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
        interpolation: Of `aliasfix.Preprocessing`.
        squash: Resize both sides to `resize`.
        transform: Your own, from a PIL image to a float tensor (C, H, W), in the place of all of these.
        channels: 3, or 1 for grey.
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
        interpolation: str = "bilinear",
        squash: bool = False,
        transform: Transform | None = None,
        channels: int = 3,
        class_to_idx: Mapping[str, int] | None = None,
        labelled: bool = True,
        unreadable: str = "skip",
    ) -> None:
        Preprocessing(size, resize, None, mean, std, interpolation, unreadable)  # says what makes no sense
        self.root = Path(root)
        self.prepared = Prepared(
            size, resize, tuple(mean), tuple(std), interpolation, squash, unreadable, transform, channels=channels
        )
        self._kept: dict[Path, Tensor] | None = None
        if not self.root.is_dir():
            raise AliasfixError(f"{self.root} is not a folder")
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
        whole = self.prepared.transform is not None
        for made, label in self._read(self.prepared if whole else self.prepared.pixels):
            image = made if whole else self.prepared.normalised(made)
            yield image if label is None else (image, label)

    def label(self, path: Path) -> int | None:
        """The label of one of `files`, None without labels."""
        return self._index[path.relative_to(self.root).parts[0]] if self._index else None

    def pixels(self) -> Iterator[tuple[Tensor, int | None]]:
        """The images before normalisation, (channels, size, size) uint8 in 0 … 255, each with its label or None.

        Raises:
            AliasfixError: A transform makes the images, and nobody knows how it normalises.
        """
        if self.prepared.transform is not None:
            raise AliasfixError("a transform of your own makes these images: their pixels are not known")
        return self._read(self.prepared.pixels)

    def _read(self, made: Callable[[Image.Image], Tensor]) -> Iterator[tuple[Tensor, int | None]]:
        skipped = []
        for path in self.files:
            image = None if self._kept is None else self._kept.get(path)
            if image is None:
                try:
                    picture = read(path, self.prepared.mode)
                except UnreadableError:
                    skipped.append(path)
                    if self.prepared.unreadable == "skip":
                        continue
                    break
                image = made(picture)
                if self._kept is not None and image.nbytes * len(self.files) <= _KEPT:
                    self._kept[path] = image
            yield image, self.label(path)
        for note in told(Seen(tuple(skipped)), self.files, self.root, self.prepared.unreadable):
            warnings.warn(note, stacklevel=3)

    def checked(self) -> list[str]:
        """Look into every file once, instead of on every pass, and leave out those that cannot be read.

        From now on images are kept once they are decoded, as far as the memory for it goes.

        Returns:
            What there is to say of the images: those left out, and those of which the first frame is taken.

        Raises:
            AliasfixError: no image can be read, or some cannot and are not skipped.
        """
        seen = look(self.files)
        notes = told(seen, self.files, self.root, self.prepared.unreadable)
        bad = set(seen.unreadable)
        self.files, self._kept = [path for path in self.files if path not in bad], {}
        return notes
