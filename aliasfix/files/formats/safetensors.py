"""``.safetensors``: a header of JSON, then the bytes of every tensor. The record is JSON in the header's metadata.

A file that is too large to load is streamed: only its header is read, and the bytes of its tensors are copied.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...errors import AliasfixError
from ...text.wording import one_line
from ..checkpoint import RECORD, Checkpoint, State
from .format import Format, Stream

_CHUNK = 16 * 2**20
_TYPES = {
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{"BF16": torch.bfloat16, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def _read(path: Path, trust: bool) -> Checkpoint:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, keys = dict(file.metadata() or {}), file.keys()
        state = {key: file.get_tensor(key) for key in keys}
    return _checkpoint(path, state, metadata)


def _write(path: Path, checkpoint: Checkpoint) -> None:
    safetensors.torch.save_file(_apart(checkpoint.path, checkpoint.state), path, _metadata(checkpoint))


def _stream(path: Path) -> Stream:
    """What stands in the header of a file, and where its tensors are."""
    with safetensors.safe_open(path, framework="pt"):
        pass  # it checks the header against the file's length
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    metadata = header.pop("__metadata__", {})
    state, places = {}, {}
    for key, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if info["dtype"] not in _TYPES:
            raise AliasfixError(f"{path}: {key} is of the type {info['dtype']}, which cannot be streamed")
        state[key] = torch.empty(info["shape"], dtype=_TYPES[info["dtype"]], device="meta")
        first, last = info["data_offsets"]
        places[key] = start + first, start + last
    return Stream(_checkpoint(path, state, metadata), functools.partial(_parts, path, places))


def _write_stream(path: Path, stream: Stream) -> None:
    """Write a header, and the bytes of the tensors after it, those of wide types first: so all are aligned."""
    state = stream.checkpoint.state
    keys = sorted(state, key=lambda key: -state[key].element_size())  # else in their order
    header: dict[str, object] = {"__metadata__": _metadata(stream.checkpoint)}
    end = 0
    for key in keys:
        begin, end = end, end + state[key].nbytes
        header[key] = {"dtype": _NAMES[state[key].dtype], "shape": list(state[key].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            for part in stream.parts(key):
                out.write(part)


def _parts(path: Path, places: dict[str, tuple[int, int]], key: str) -> Iterator[bytes]:
    at, end = places[key]
    with path.open("rb") as file:
        file.seek(at)
        while at < end:
            part = file.read(min(_CHUNK, end - at))
            if not part:
                raise AliasfixError(f"{path} became shorter while it was read")
            at += len(part)
            yield part


def _checkpoint(path: Path, state: State, metadata: dict[str, str]) -> Checkpoint:
    """Tensors, with the record that stands in the metadata."""
    content: dict[str, Any] = {"state_dict": state}
    if RECORD in metadata:
        try:
            content[RECORD] = json.loads(metadata.pop(RECORD))
        except (ValueError, RecursionError) as error:
            raise AliasfixError(f"{path}: its metadata {RECORD!r} is no JSON: {one_line(error)}") from None
    return Checkpoint(path, content, metadata=metadata)


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    record = {RECORD: json.dumps(checkpoint.content[RECORD])} if RECORD in checkpoint.content else {}
    return {"format": "pt", **checkpoint.metadata, **record}


def _apart(path: Path, state: State) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them: tied weights are written once for each key."""
    apart = {}
    storages = set()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise AliasfixError(f"{path}: {key} is no tensor, and a .safetensors file holds nothing else; use .pth")
        tensor = value.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return apart


FORMAT = Format(
    "safetensors", (".safetensors",), _read, _write, stream=_stream, write_stream=_write_stream,
)  # fmt: skip
