"""Convert a file that is too large to load: keys and tensors stay, only the record is added.

The model is built without memory for its weights, and the file's tensors are copied as they are.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from ..errors import AliasfixError
from . import formats, saving
from .checkpoint import RECORD, reading
from .formats import Stream, sharded
from .record import Record, tensor_head


def is_large(path: Path) -> bool:
    """Whether a file that can be streamed, or those of an index, are larger than half of the machine's memory."""
    if not os.path.isfile(path):
        return False
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = sharded.files(path)
    able = all(form is not None and form.stream is not None for form in map(formats.of, found))
    return able and sum(file.stat().st_size for file in found) > memory / 2


def open_stream(path: Path) -> Stream:
    """A checkpoint whose tensors stay on the disk.

    Raises:
        AliasfixError: its format cannot be streamed, it is damaged, or of types that torch does not have.
    """
    form = formats.of(path)
    if form is None or form.stream is None:
        able = [suffix for suffix, known in formats.formats().items() if known.stream is not None]
        raise AliasfixError(f"{path} cannot be streamed, as a {' or '.join(able)} file can: leave stream out")
    with reading(path, form):
        return form.stream(path)


def write_streamed(path: Path, stream: Stream, record: Record) -> None:
    """Write the tensors again with a record; the file is in place whole or not at all.

    Raises:
        AliasfixError: it cannot be written.
    """
    form = formats.of(path)
    if form is None or form.write_stream is None:
        able = [suffix for suffix, known in formats.formats().items() if known.write_stream is not None]
        raise AliasfixError(f"{path}: what is streamed stays a {' or '.join(able)} file")
    saving.check_file(path)
    source = stream.checkpoint
    record = replace(record, weights=_digest(stream))
    checkpoint = replace(source, path=path, content={**source.content, RECORD: record.to_dict()})
    with saving.replacing(path) as temporary:
        form.write_stream(temporary, replace(stream, checkpoint=checkpoint))


def _digest(stream: Stream) -> str:
    """What `aliasfix.record.digest_of_weights` says of the loaded tensors."""
    total, state = hashlib.sha256(), stream.checkpoint.state
    for key in sorted(state):
        total.update(tensor_head(key, str(state[key].dtype).removeprefix("torch."), tuple(state[key].shape)))
        for part in stream.parts(key):
            total.update(part)
    return f"sha256:{total.hexdigest()}"
