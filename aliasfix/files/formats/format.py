"""What a checkpoint format is, and where formats are found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ... import extension
from ...errors import AliasfixError

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

GROUP = "aliasfix.formats"  # the entry points by which other packages add formats


@dataclass(frozen=True)
class Stream:
    """A checkpoint whose tensors stay on the disk.

    Args:
        checkpoint: its keys, with tensors on the meta device.
        parts: yields the bytes of a tensor, by its key.
    """

    checkpoint: Checkpoint
    parts: Callable[[str], Iterator[bytes]]


@dataclass(frozen=True)
class Format:
    """One way to keep a checkpoint in a file.

    A format is the name ``FORMAT`` of a file in ``aliasfix/files/formats/``, or what an entry point of the group
    ``aliasfix.formats`` names.

    Args:
        name: what a file of it is called in messages.
        suffixes: how the names of its files end.
        read: returns the checkpoint in a file. The second argument says whether the user trusts the file, so that code
            in it may run. Of what it raises, an `AliasfixError` is passed on; all else says that the file is damaged.
        write: writes a checkpoint into a file, which gets its place afterwards. ``checkpoint.content`` has everything
            in it, the record too; ``checkpoint.path`` is the place, for messages. None if it is only read.
        keeps_all: whether it keeps the entries beside the weights: optimizer, epoch, arguments and so on.
        stream: opens a file without loading its tensors; None if it cannot.
        write_stream: writes what ``stream`` opened into a file; None if it cannot.

    >>> formats()[".safetensors"].keeps_all, formats()[".pth"].keeps_all
    (False, True)
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, bool], Checkpoint]
    write: Callable[[Path, Checkpoint], None] | None = None
    keeps_all: bool = False
    stream: Callable[[Path], Stream] | None = None
    write_stream: Callable[[Path, Stream], None] | None = None


@functools.cache
def formats() -> Mapping[str, Format]:
    """The format of each suffix, in the order of the file names; those of other packages follow.

    Raises:
        AliasfixError: another package's format does not load, or uses a suffix that is taken.
    """
    found: dict[str, Format] = {}
    for module in extension.modules("aliasfix.files.formats"):
        form = getattr(module, "FORMAT", None)
        if form is not None:
            found |= dict.fromkeys(form.suffixes, form)
    for whose, form in extension.registered(GROUP, "the format"):
        if not isinstance(form, Format):
            raise AliasfixError(f"{whose} is a {type(form).__name__}: make it an aliasfix.files.formats.Format")
        if taken := sorted(set(form.suffixes) & set(found)):
            raise AliasfixError(f"{whose} uses the suffix {taken[0]!r}, which is taken; uninstall the package")
        found |= dict.fromkeys(form.suffixes, form)
    return found


def of(path: str | Path) -> Format | None:
    """The format that a file's name ends in, None if it is no format's.

    >>> of("model.safetensors").name, of("model.pth.tar").name, of("model.onnx")
    ('safetensors', 'torch.save', None)
    """
    name = Path(path).name
    return next((form for suffix, form in formats().items() if name.endswith(suffix) and name != suffix), None)


def writable() -> tuple[str, ...]:
    """The suffixes of the formats that are written.

    >>> {".pth", ".safetensors"} <= set(writable())
    True
    """
    return tuple(suffix for suffix, form in formats().items() if form.write is not None)
