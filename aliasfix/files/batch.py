"""Which checkpoints a command is given, and where what becomes of each is written."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AliasfixError
from . import directory, formats, saving
from .formats import sharded


@dataclass(frozen=True)
class Task:
    """One checkpoint, a file or a model's directory, and its output; without a checkpoint the model's own weights.

    Args:
        given: the checkpoint.
        output: a file, or a directory, which then ends in a slash or has no suffix.
    """

    given: Path | None
    output: str


def tasks(given: Sequence[Path], output: str) -> list[Task]:
    """The tasks of a conversion: one for each checkpoint, also of those in a directory tree.

    A single checkpoint, or none, becomes ``output``. Several, or a tree, are laid out under ``output`` as they were.

    Raises:
        AliasfixError: an output that cannot be written, or is no directory for several, two for one place, or a tree
            without weights.
    """
    trees = [path for path in given if os.path.isdir(path) and not directory.is_model(path)]
    if len(given) < 2 and not trees:
        if not directory.is_directory(output):
            saving.check_file(output)
        return [Task(given[0] if given else None, output)]
    target = Path(output)
    for tree in trees:
        if next(_walk(tree, target), None) is None:
            raise AliasfixError(f"no weights in the directory {tree}: looked for {', '.join(formats.formats())}")
    if not directory.is_directory(output):
        raise AliasfixError(f"{output} is a file, and there are several checkpoints: give a directory")
    found: dict[Path, Path] = {}
    for path in given:
        for one in _walk(path, target) if path in trees else [path]:
            place = _place(target / (one.relative_to(path) if path in trees else one.name))
            if place in found and found[place] != one:
                raise AliasfixError(f"{found[place]} and {one} would both become {place}")
            found[place] = one
    return [Task(one, os.path.join(place, "") if os.path.isdir(one) else str(place)) for place, one in found.items()]


def _place(path: Path) -> Path:
    """Where what becomes of a checkpoint is written: of the files that an index names, one."""
    if not path.name.endswith(sharded.SUFFIX):
        return path
    path = path.with_name(path.name.removesuffix(sharded.SUFFIX))
    return path if formats.of(path) else path.with_suffix(".pth")


def _walk(root: Path, output: Path) -> Iterator[Path]:
    """The checkpoints under a directory, in order; nothing is reached through a link, nor in the output."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        if here != root and directory.is_model(here):
            names.clear()
            yield here
            continue
        names[:] = sorted(n for n in names if not n.startswith(".") and (here / n).absolute() != output.absolute())
        found = [here / name for name in sorted(files) if formats.of(name) and not name.startswith(".")]
        shards = {shard for file in found for shard in _shards(file)}
        yield from (file for file in found if file not in shards and not file.is_symlink())


def _shards(file: Path) -> list[Path]:
    """The files that an index names; none of a damaged one, which is reported when it is read."""
    try:
        return sharded.files(file) if file.name.endswith(sharded.SUFFIX) else []
    except AliasfixError:
        return []
