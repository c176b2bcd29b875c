"""Read a checkpoint.

Weights come bare, or in an entry of what a trainer saved: timm's and torchvision's names of that entry are
looked for in timm's order, the averaged weights (EMA) first. A conversion changes neither keys nor tensors, so a
checkpoint is kept as it was read: `aliasfix.loading` loads it into a model, and `aliasfix.saving` writes it back with
the recipe beside.
"""

import argparse
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import safetensors
import torch
from torch import Tensor, nn

from ..edits.inserted import is_inserted
from ..errors import AliasfixError
from ..text.wording import listing, one_line
from .record import Record

State = Mapping[str, Any]
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
RECORD = "aliasfix"


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, with everything else that it holds.

    Args:
        path: the file, for messages.
        content: the file's entries; bare weights become the entry ``state_dict``.
        entry: the one that has the weights.
        metadata: of a safetensors file.
    """

    path: Path
    content: Mapping[str, Any]
    entry: str = "state_dict"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The weights, with the file's own keys."""
        state: State = self.content[self.entry]
        return state

    @property
    def beside(self) -> list[str]:
        """The entries next to the weights: optimizer, epoch, arguments and so on."""
        return sorted(str(key) for key in self.content if key not in (self.entry, RECORD))

    @property
    def record(self) -> Record | None:
        """What aliasfix stored in the file, None if it was not converted.

        Raises:
            AliasfixError: something else stands in its place, or it is refused; see `aliasfix.record`.
        """
        return parse(self.path, self.content[RECORD]) if RECORD in self.content else None

    @property
    def blurs(self) -> set[str]:
        """The blurs that the model had when its weights were taken, as far as ``torch.save`` kept their names."""
        return blurs(self.state)

    @property
    def args(self) -> dict[str, Any]:
        """The command line of the trainer that wrote the file."""
        args = self.content.get("args")
        args = vars(args) if isinstance(args, argparse.Namespace) else args
        return args if isinstance(args, dict) else {}

    @property
    def model_name(self) -> str | None:
        """What the trainer that wrote the file calls the model."""
        name = self.args.get("model")
        return name if isinstance(name, str) else None

    def factory_args(self) -> dict[str, Any]:
        """What timm's trainer built the model with, as far as it shapes or changes the network."""
        args = self.args
        size, more = args.get("input_size"), args.get("model_kwargs")
        found = {
            "num_classes": args.get("num_classes"),
            "in_chans": args.get("in_chans") or (size[0] if isinstance(size, list | tuple) and size else None),
            "global_pool": args.get("gp"),
            "bn_momentum": args.get("bn_momentum"),
            "bn_eps": args.get("bn_eps"),
        }
        return {key: value for key, value in found.items() if value is not None} | (
            more if isinstance(more, dict) else {}
        )


def parse(path: Path, data: object) -> Record:
    """The record that stands in a file.

    Raises:
        AliasfixError: it is refused; names the file.
    """
    try:
        return Record.from_dict(data)
    except AliasfixError as error:
        raise AliasfixError(f"{path}: {error}") from None


def blurs(state: State) -> set[str]:
    """The blurs of a converted model that a ``state_dict`` names: they have no weights, but their versions."""
    versions = getattr(state, "_metadata", None)
    names = versions if isinstance(versions, Mapping) else ()
    found = {str(name) for name in names if is_inserted(str(name))}
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name) for name in found}


def read_checkpoint(path: str | Path, trust: bool = False) -> Checkpoint:
    """Read a ``.safetensors`` file, or what ``torch.save`` wrote.

    Args:
        path: the file.
        trust: also read a pickle that holds code, which runs it.

    Raises:
        AliasfixError: no such file, a damaged one, one without weights, or one that holds code.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing
        raise AliasfixError(f"{path} is a directory" if os.path.isdir(path) else f"no such file: {path}")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, trust)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata, keys = dict(file.metadata() or {}), file.keys()
            state = {key: file.get_tensor(key) for key in keys}
    except Exception as error:
        raise AliasfixError(f"{path} is damaged, or no safetensors file: {one_line(error)}") from error
    content: dict[str, Any] = {"state_dict": state}
    return from_safetensors(path, content, metadata)


def from_safetensors(path: Path, content: dict[str, Any], metadata: dict[str, str]) -> Checkpoint:
    """What a safetensors file holds, with the record that stands in its metadata.

    Raises:
        AliasfixError: the record is no JSON.
    """
    if RECORD in metadata:
        try:
            content[RECORD] = json.loads(metadata.pop(RECORD))
        except (ValueError, RecursionError) as error:
            raise AliasfixError(f"{path}: its metadata {RECORD!r} is no JSON: {one_line(error)}") from None
    return Checkpoint(path, content, metadata=metadata)


def _read_torch(path: Path, trust: bool) -> Checkpoint:
    check_whole(path)
    content = _unpickle(path, trust)
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise AliasfixError(f"{path} holds no weights but a {type(content).__name__}")
    for entry in ENTRIES:
        value = content.get(entry)
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if _is_state(value):
            _check_tensors(path, value)
            return Checkpoint(path, {**content, entry: value}, entry)
    if not _is_state(content):
        known = listing([str(key) for key in content], 6) or "none"
        raise AliasfixError(f"{path} holds no weights in {', '.join(ENTRIES)}; its entries: {known}")
    _check_tensors(path, content)
    return Checkpoint(path, {"state_dict": content})


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


def _is_state(value: object) -> TypeGuard[State]:
    return (
        isinstance(value, Mapping)
        and all(isinstance(key, str) for key in value)
        and any(isinstance(tensor, Tensor) for tensor in value.values())
    )


def check_whole(path: Path) -> None:
    """Compare the checksums of the file's parts: ``torch.load`` would take a flipped bit for a weight.

    Raises:
        AliasfixError: the file is damaged, no checkpoint, or a program.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise AliasfixError(f"{path} is empty")
        if start[:1] == b"\x80":  # a pickle, as torch wrote until 1.6: it has no checksums
            return
        if start != b"PK":
            raise AliasfixError(f"{path} is no checkpoint: neither a zip file nor a pickle")
        with zipfile.ZipFile(path) as archive:
            _check_kind(path, archive.namelist())
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


def _check_kind(path: Path, parts: list[str]) -> None:
    """Refuse the zip files of torch that hold a program: its operations are fixed, there are no modules to change."""
    for kind, mark in {"torch.export": "archive_format", "TorchScript": "constants.pkl"}.items():
        if any(part.partition("/")[2] == mark for part in parts):
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
