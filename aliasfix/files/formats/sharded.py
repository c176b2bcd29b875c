"""The index of a checkpoint in several files, as Hugging Face lays it out. It is read only.

``model.safetensors.index.json`` and ``pytorch_model.bin.index.json`` lie beside the files that they name.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import AliasfixError
from ...text.wording import listing
from .. import checkpoint, directory, streaming
from ..checkpoint import Checkpoint
from .format import Format, Stream

SUFFIX = ".index.json"


def files(path: Path) -> list[Path]:
    """The files that an index names; of any other file, itself.

    Raises:
        AliasfixError: the index is damaged, or names a file that is missing, a link, or in another directory.
    """
    return list(dict.fromkeys(_places(path).values())) if path.name.endswith(SUFFIX) else [path]


def _read(path: Path, trust: bool) -> Checkpoint:
    places = _places(path)
    return _merged(path, places, {file: checkpoint.read_checkpoint(file, trust) for file in files(path)})


def _stream(path: Path) -> Stream:
    places = _places(path)
    streams = {file: streaming.open_stream(file) for file in files(path)}
    merged = _merged(path, places, {file: stream.checkpoint for file, stream in streams.items()})
    return Stream(merged, lambda key: streams[places[key]].parts(key))


def _places(path: Path) -> dict[str, Path]:
    """The file of every key."""
    listed = directory.read_json(path.parent, path.name).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise AliasfixError(f"{path} is no index: it has no weight_map")
    found = {name: _file(path, name) for name in dict.fromkeys(map(str, listed.values()))}
    return {key: found[str(name)] for key, name in listed.items()}


def _file(path: Path, name: str) -> Path:
    if name.endswith(SUFFIX):
        raise AliasfixError(f"{path} names another index: {name}")
    if Path(name).name == name and not os.path.lexists(path.parent / name):
        raise AliasfixError(f"{path.parent / name} is missing: {path.name} names it")
    return directory.plain_file(path.parent, name)


def _merged(path: Path, places: Mapping[str, Path], parts: Mapping[Path, Checkpoint]) -> Checkpoint:
    """The weights of several files, each of which holds the keys that the index says."""
    state: dict[str, Any] = {}
    for file, part in parts.items():
        keys = {key for key, place in places.items() if place == file}
        if missing := sorted(keys - part.state.keys()):
            raise AliasfixError(f"{file} lacks {listing(missing)}, which {path.name} looks for there")
        if more := sorted(part.state.keys() - keys):
            raise AliasfixError(f"{file} holds {listing(more)}, which {path.name} does not look for there")
        state |= part.state
    return Checkpoint(path, {"state_dict": state}, metadata=next(iter(parts.values())).metadata)


FORMAT = Format("sharded", (SUFFIX,), _read, stream=_stream)
