"""Convert a safetensors file that is too large to load: keys and tensors stay, only the header is another.

The model is built without memory for its weights, and the file's tensors are copied as they are.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import safetensors
import torch

from ..errors import AliasfixError
from ..text.wording import one_line
from . import saving
from .checkpoint import RECORD, Checkpoint, from_safetensors
from .record import Record, tensor_head

_CHUNK = 16 * 2**20
_TYPES = {
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{"BF16": torch.bfloat16, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}


@dataclass(frozen=True)
class Stream:
    """A safetensors file whose tensors stay on the disk.

    Args:
        checkpoint: its keys, with tensors on the meta device.
        offsets: of each tensor's bytes, from the start of the file.
        start: of all tensors' bytes.
    """

    checkpoint: Checkpoint
    offsets: dict[str, tuple[int, int]]
    start: int


def is_large(path: Path) -> bool:
    """Whether a file is larger than half of the machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return path.suffix == ".safetensors" and os.path.isfile(path) and path.stat().st_size > memory / 2


def read_header(path: Path) -> Stream:
    """What stands in the header of a safetensors file.

    Raises:
        AliasfixError: it is damaged, or of types that torch does not have.
    """
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass  # it checks the header against the file's length
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
    except Exception as error:
        raise AliasfixError(f"{path} is damaged, or no safetensors file: {one_line(error)}") from error
    metadata = header.pop("__metadata__", {})
    state, offsets = {}, {}
    for key, info in header.items():
        if info["dtype"] not in _TYPES:
            raise AliasfixError(f"{path}: {key} is of the type {info['dtype']}, which cannot be streamed")
        state[key] = torch.empty(info["shape"], dtype=_TYPES[info["dtype"]], device="meta")
        offsets[key] = (start + info["data_offsets"][0], start + info["data_offsets"][1])
    return Stream(from_safetensors(path, {"state_dict": state}, metadata), offsets, start)


def write_streamed(path: Path, stream: Stream, record: Record) -> None:
    """Write the file again with a record; it is in place whole or not at all.

    Raises:
        AliasfixError: it cannot be written.
    """
    if path.suffix != ".safetensors":
        raise AliasfixError(f"{path}: what is streamed stays a .safetensors file")
    saving.check_file(path)
    source = stream.checkpoint
    with source.path.open("rb") as file:
        record = replace(record, weights=_digest(file, stream))
        metadata = {"format": "pt", **source.metadata, RECORD: json.dumps(record.to_dict())}
        header: dict[str, object] = {"__metadata__": metadata}
        file.seek(8)
        header |= {key: info for key, info in json.loads(file.read(stream.start - 8)).items() if key != "__metadata__"}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the tensors stay aligned
        with saving.replacing(path) as temporary, temporary.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for part in _parts(file, stream.start, os.fstat(file.fileno()).st_size):
                out.write(part)


def _digest(file: BinaryIO, stream: Stream) -> str:
    """What `aliasfix.record.digest_of_weights` says of the loaded tensors."""
    total = hashlib.sha256()
    for key in sorted(stream.offsets):
        tensor = stream.checkpoint.state[key]
        total.update(tensor_head(key, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
        for part in _parts(file, *stream.offsets[key]):
            total.update(part)
    return f"sha256:{total.hexdigest()}"


def _parts(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        part = file.read(min(_CHUNK, end - start))
        if not part:
            raise AliasfixError("the file became shorter while it was read")
        start += len(part)
        yield part
