"""What ``torch.save`` writes: a trainer's checkpoint or bare weights, with the record as one entry more.

It is a pickle, which is read without running code unless the user trusts it.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import AliasfixError
from ...text.wording import listing, one_line
from ..checkpoint import Checkpoint, State, unwrapped
from .format import Format

_PROGRAMS = {  # a file that only such a zip file has
    "archive_format": "torch.export",
    "serialized_exported_program.json": "torch.export",  # of torch before 2.8
    "constants.pkl": "TorchScript",
}


def _read(path: Path, trust: bool) -> Checkpoint:
    _check_whole(path)
    content = _unpickle(path, trust)
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise AliasfixError(f"{path} holds no weights but a {type(content).__name__}")
    found = unwrapped(path, content)
    _check_tensors(path, found.state)
    return found


def _write(path: Path, checkpoint: Checkpoint) -> None:
    with path.open("wb") as file:
        torch.save(dict(checkpoint.content), file)


def _check_tensors(path: Path, state: State) -> None:
    """Refuse tensors that have no bytes of their own in the file; one may claim any size, and fill the memory later."""
    size = path.stat().st_size
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            kind = tensor.layout if tensor.layout != torch.strided else tensor.dtype if tensor.is_quantized else "meta"
            raise AliasfixError(f"{path}: {key} is no plain tensor but {kind}: save what it holds as a plain one")
        if max(tensor.nbytes, tensor.untyped_storage().nbytes()) > size:
            raise AliasfixError(f"{path}: {key} claims {tensor.nbytes} bytes, and the file has {size}: it is refused")


def _check_whole(path: Path) -> None:
    """Compare the checksums of the file's parts: ``torch.load`` would take a flipped bit for a weight."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise AliasfixError(f"{path} is empty")
        if start[:1] == b"\x80":  # a pickle, as torch wrote until 1.6: it has no checksums
            return
        if start != b"PK":
            raise AliasfixError(f"{path} is no checkpoint: neither a zip file nor a pickle")
        refuse_program(path)
        with zipfile.ZipFile(path) as archive:
            packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise AliasfixError(f"{path} is refused: {listing(packed)} is compressed, and torch compresses nothing")
            # torch.serialization.set_crc32_options(False) leaves them all 0
            checked = any(part.CRC for part in archive.infolist())
            damaged = archive.testzip() if checked else None
    except OSError as error:
        raise AliasfixError(f"{path} cannot be read: {error.strerror or error}") from error
    except AliasfixError:
        raise
    except Exception as error:
        raise AliasfixError(f"{path} is damaged or cut short: {one_line(error)}") from error
    if damaged:
        raise AliasfixError(f"{path} is damaged: the checksum of {damaged} does not match")


def refuse_program(path: Path) -> None:
    """Refuse the zip files of torch that hold a program: its operations are fixed, there are no modules to change.

    Raises:
        AliasfixError: the file is one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.namelist()
    except Exception:  # no zip file, or a damaged one
        return
    program = "serialized_exported_program.json"  # of torch before 2.8
    for mark, kind in {
        "archive_format": "torch.export",
        program: "torch.export",
        "constants.pkl": "TorchScript",
    }.items():
        if any(part.rpartition("/")[2] == mark for part in parts):
            raise AliasfixError(
                f"{path} is refused: a program of {kind} stays as it is; convert the module that it was made from, "
                f"then make the program again"
            )


def _unpickle(path: Path, trust: bool) -> Any:
    # timm's and torchvision's trainers save their command line
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about the age of a file's format
        try:
            return torch.load(path, map_location="cpu", weights_only=not trust)
        except Exception as error:
            unsafe = isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error)
            if trust or not unsafe:
                raise AliasfixError(f"{path} is damaged, or no checkpoint: {one_line(error)}") from error
            raise AliasfixError(
                f"{path} is refused: it holds more than weights{_code_in(path, error)}, and reading that can run "
                f"code; if you trust where it comes from: --trust-pickle (trust=True)"
            ) from None


def _code_in(path: Path, error: Exception) -> str:
    """What a pickle would import and call."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # not a zip file, TorchScript
        names = re.findall(r"GLOBAL ([\w.]+\w)", str(error))[:1]
    return f" ({listing(names)})" if names else ""


FORMAT = Format("torch.save", (".pth", ".pt", ".tar", ".ckpt"), _read, _write, keeps_all=True)
