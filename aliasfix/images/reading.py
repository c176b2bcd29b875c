"""Read image files as people have them: upright, in 8 bits, of several frames the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from aliasfix.errors import AliasfixError
from aliasfix.text.progress import Work
from aliasfix.text.wording import listing, printable

SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
"""Files that are taken for images; those that Pillow cannot read are named, not passed over."""
MAY_SKIP = ("skip", "refuse")
"""What may become of an image that cannot be read."""


class UnreadableError(AliasfixError):
    """A file that is no image, or is cut short."""


def read(path: Path, mode: str = "RGB") -> Image.Image:
    """An image, turned as its EXIF orientation says, with the first of its frames and without its transparency.

    Sixteen bits are scaled to eight; Pillow itself would cut off what is above 255.

    Args:
        path: the file.
        mode: ``RGB`` or ``L``.

    Raises:
        UnreadableError: no image, or one that is cut short.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("I;16", (1, 1), 257 * 100).save(f"{folder}/deep.png")
    ...     read(Path(folder, "deep.png")).getpixel((0, 0))
    (100, 100, 100)
    """
    try:
        with Image.open(path) as image:
            return _in_8_bits(_upright(image)).convert(mode)
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise UnreadableError(f"{path} cannot be read as an image") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of EXIF data that are damaged; the picture need not be
        return image


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 257).convert("L")
    return image.convert("RGBA") if image.mode == "P" else image  # Pillow warns of a palette's transparency in RGB


@dataclass(frozen=True)
class Seen:
    """What became clear of files by looking into each."""

    unreadable: tuple[Path, ...] = ()
    animated: tuple[Path, ...] = ()
    """Of several frames or pages."""


def look(files: Sequence[Path]) -> Seen:
    """Look into files before the work. A JPEG is decoded at an eighth of its size, which is enough."""
    unreadable, animated = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Work("looking at the images", len(files)) as work:
        for path, frames in zip(files, pool.map(_frames, files), strict=True):
            work.advance()
            if not frames:
                unreadable.append(path)
            elif frames > 1:
                animated.append(path)
    return Seen(tuple(unreadable), tuple(animated))


def told(seen: Seen, files: Sequence[Path], root: str | Path, unreadable: str = "skip") -> list[str]:
    """What there is to say of a folder's images.

    Args:
        seen: what became clear of them.
        files: all of them.
        root: the folder.
        unreadable: ``refuse`` stops at images that cannot be read.

    Raises:
        AliasfixError: none can be read, or some cannot and are not skipped.
    """
    notes = []
    if seen.unreadable:
        message = f"{len(seen.unreadable)} of {len(files)} images in {root} cannot be read"
        if len(seen.unreadable) == len(files):
            raise AliasfixError(message)
        if unreadable == "refuse":
            raise AliasfixError(
                f"{message}: {_named(seen.unreadable, root)}; mend or remove them, or skip them (--unreadable skip)"
            )
        notes.append(f"{message} and were skipped: {_named(seen.unreadable, root)}")
    if seen.animated:
        several = f"{len(seen.animated)} of {len(files)} images in {root} have several frames"
        notes.append(f"{several}, of which the first is taken: {_named(seen.animated, root)}")
    return notes


def listed(root: Path) -> list[Path]:
    """The image files under a folder, sorted; links are followed, and names with a dot before them left out.

    Raises:
        AliasfixError: a directory cannot be read; names it. Its images would be missing, and its class too.
    """
    return sorted(_walked(root))


def _walked(root: Path) -> Iterator[Path]:
    met = set()
    for folder, inner, names in os.walk(root, onerror=_refuse, followlinks=True):
        place = os.path.realpath(folder)
        if place in met:  # a link that leads back
            inner.clear()
            continue
        met.add(place)
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _refuse(error: OSError) -> None:
    raise AliasfixError(
        f"the directory {error.filename} cannot be read ({error.strerror}): "
        "permit it, or move it out of the folder of images"
    )


def _frames(path: Path) -> int:
    """How many frames an image has; 0 if it cannot be read."""
    try:
        with Image.open(path) as image:
            # a phone's JPEG holds a preview beside the picture
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            image.draft(None, (1, 1))
            image.convert("RGBA" if image.mode == "P" else "RGB")
    except Exception:
        return 0
    return int(frames)


def _named(paths: Sequence[Path], root: str | Path) -> str:
    return listing([printable(str(path.relative_to(root))) for path in sorted(paths)], 10)
