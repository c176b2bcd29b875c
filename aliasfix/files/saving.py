"""Write a checkpoint back: everything it held, and the recipe beside the weights."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AliasfixError
from ..text.wording import one_line
from . import formats
from .checkpoint import RECORD, Checkpoint


def check_file(path: str | Path) -> Path:
    """Find out before the work whether a file can be written.

    Raises:
        AliasfixError: a suffix that names no format, or a directory that is missing or closed.

    >>> check_file("model.safetensors")
    PosixPath('model.safetensors')
    """
    path = Path(path)
    _writer(path)
    return check_place(path)


def _writer(path: Path) -> Callable[[Path, Checkpoint], None]:
    """What writes a file of such a name."""
    form = formats.of(path)
    if form is None or form.write is None:
        raise AliasfixError(f"{path}: the format is told by the suffix, one of {', '.join(formats.writable())}")
    return form.write


def check_place(path: Path) -> Path:
    """Find out before the work whether a file of any format can be written there.

    Raises:
        AliasfixError: a directory that is missing or closed, or a directory in the file's place.
    """
    if os.path.isdir(path):
        raise AliasfixError(f"{path} is a directory; name a file in it")
    if not os.path.isdir(path.parent):
        raise AliasfixError(f"no such directory: {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AliasfixError(f"{path} could not be written: no permission to write in {path.parent}")
    return path


def write_checkpoint(path: str | Path, checkpoint: Checkpoint, record: Mapping[str, Any] | None) -> None:
    """Write a checkpoint in the format that the suffix names; a file in its place is replaced whole or not at all.

    Args:
        path: the file; its format says whether it has room for entries beside the weights.
        checkpoint: what to write; keys and tensors stay as they are.
        record: what aliasfix did, JSON-able; None for weights that are not converted.

    Raises:
        AliasfixError: the file cannot be written; nothing is left behind.
    """
    path = check_file(path)
    content = {key: value for key, value in checkpoint.content.items() if key != RECORD}
    if record is not None:
        content[RECORD] = dict(record)
    with replacing(path) as temporary:
        _writer(path)(temporary, replace(checkpoint, path=path, content=content))


def sync(folder: Path) -> None:
    """Have the names in a directory on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which becomes ``path`` at the end, or is gone."""
    target = Path(os.path.realpath(path))  # of a link, the file it leads to
    temporary = (
        target.parent / f".aliasfix-{secrets.token_hex(6)}.tmp{target.suffix}"
    )  # some libraries go by the suffix
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if target.exists():
            shutil.copymode(target, temporary)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync(target.parent)
    except AliasfixError:
        raise
    except Exception as error:  # torch and safetensors wrap the system's errors in their own
        raise AliasfixError(f"{path} could not be written: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone where all went well
            os.unlink(temporary)


def _reason(error: BaseException) -> str:
    """The system's word, where there is one: torch buries it, safetensors spells it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else one_line(error)
