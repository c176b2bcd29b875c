"""A model's directory: ``config.json`` and ``model.safetensors``, as timm and Hugging Face lay it out.

Those are read, too, whose weights are in ``pytorch_model.bin``, or in several files that an index names. Of a directory
only these plain files in it are read: no links, and no names that lead elsewhere.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AliasfixError
from ..text.wording import one_line
from . import checkpoint, saving
from .checkpoint import RECORD, Checkpoint
from .record import Record, check_base

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NAMES = (WEIGHTS, _INDICES[0], "pytorch_model.bin", _INDICES[1])  # of the weights, in the order of transformers
ARCHITECTURE = "aliasfix"  # no name of timm's, so that timm refuses the directory unless aliasfix is imported
_LARGEST_JSON = 64 * 2**20
_NAME_IT = "name what builds the model, and the directory as --checkpoint"


def is_directory(path: str | Path) -> bool:
    """Whether a path means a model's directory: it is one, ends in a slash, or has no suffix.

    >>> is_directory("out"), is_directory("resnet18.a1/"), is_directory("out.pth")
    (True, True, False)
    """
    return os.path.isdir(path) or os.fspath(path).endswith(os.sep) or not Path(path).suffix


def is_model(path: Path) -> bool:
    """Whether a directory is a model's."""
    return any(os.path.lexists(path / name) for name in (CONFIG, *_INDICES))


def base(path: Path) -> tuple[str, dict[str, Any]]:
    """What builds the model of a directory, and with which arguments.

    Raises:
        AliasfixError: a directory that neither timm, nor transformers, nor aliasfix wrote.
    """
    if not os.path.lexists(path / CONFIG):
        raise AliasfixError(f"{path} has no {CONFIG}: {_NAME_IT} {path}")
    config = read_config(path)
    args = config.get("model_args") or {}
    if not isinstance(args, dict):
        raise AliasfixError(f"{path / CONFIG}: its model_args are no arguments")
    architecture = config.get("architecture")
    if architecture == ARCHITECTURE:
        record = checkpoint.parse(path / CONFIG, args.get("record"))
        return str(record.base), dict(record.base_args)
    if not isinstance(architecture, str):
        kind = config.get("architectures") or config.get("model_type")
        if "model_type" in config and isinstance(kind, list) and kind and isinstance(kind[0], str):
            return f"transformers:{kind[0]}", {"config": os.fspath(path)}
        raise AliasfixError(
            f"{path / CONFIG} names no architecture of timm's{f' but {kind}' if kind else ''}: {_NAME_IT} {path}"
        )
    classes = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
    check_base(f"timm:{architecture}", args)
    return f"timm:{architecture}", {**classes, **args}


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a model's directory.

    Raises:
        AliasfixError: there is none, it is a link, too large, or no JSON object.
    """
    return read_json(path, CONFIG)


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a directory.

    Raises:
        AliasfixError: there is none, it is a link, too large, or no JSON object.
    """
    file = plain_file(path, name)
    if file.stat().st_size > _LARGEST_JSON:
        raise AliasfixError(f"{file} is larger than {_LARGEST_JSON // 2**20} MiB: it is not read")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise AliasfixError(f"{file} is no JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise AliasfixError(f"{file} holds no JSON object")
    return content


def read_directory(path: Path, trust: bool = False) -> Checkpoint:
    """The weights of a model's directory, and the record where aliasfix wrote it.

    Args:
        path: the directory.
        trust: also read a pickle that holds code, which runs it.

    Raises:
        AliasfixError: a missing, linked or damaged file, or a configuration and weights of two conversions.
    """
    name = next((name for name in NAMES if os.path.lexists(path / name)), WEIGHTS)
    config = {} if name in _INDICES and not os.path.lexists(path / CONFIG) else read_config(path)
    file = replace(checkpoint.read_checkpoint(plain_file(path, name), trust), path=path)
    args = config.get("model_args")
    stored = args.get("record") if config.get("architecture") == ARCHITECTURE and isinstance(args, dict) else None
    if stored is None:
        if RECORD in file.content:
            raise AliasfixError(
                f"{path}: {name} holds a converted model, but {CONFIG} an architecture {config.get('architecture')!r}"
            )
        return file
    record = checkpoint.parse(path / CONFIG, stored)
    inner = file.record
    if inner is None:  # written anew by timm, with the weights of further training
        return replace(file, content={**file.content, RECORD: record.to_dict()})
    if difference := record.difference(inner):
        raise AliasfixError(f"{path}: {CONFIG} and {name} are of two conversions: {difference}")
    return file


def write_directory(path: Path, file: Checkpoint, record: Record, config: Mapping[str, Any]) -> None:
    """Write a model's directory.

    A new directory appears whole or not at all. Of an old one the two files are replaced, the weights first; where that
    is interrupted, reading finds out if the two are not of one conversion.

    Raises:
        AliasfixError: it cannot be written.
    """
    described = replace(record, weights=None, fingerprint=None)
    text = json.dumps({**config, "architecture": ARCHITECTURE, "model_args": {"record": described.to_dict()}}, indent=2)
    for name in (WEIGHTS, CONFIG):
        if os.path.islink(path / name):
            raise AliasfixError(f"{path / name} is a link: nothing is written through it")
    with _appearing(path) as folder:
        saving.write_checkpoint(folder / WEIGHTS, file, record.to_dict())
        with saving.replacing(folder / CONFIG) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def plain_file(path: Path, name: str) -> Path:
    """A file of a model's directory.

    Raises:
        AliasfixError: a name that leads elsewhere, a link, or no file.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise AliasfixError(f"{path}: the name {name!r} leads out of the directory")
    file = path / name
    if os.path.islink(file):
        raise AliasfixError(f"{file} is a link, and a model's directory holds plain files: copy it with cp -L")
    if not os.path.isfile(file):
        raise AliasfixError(f"{path} is no model's directory: it has no {name}")
    return file


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A directory to write to: the old one, or a new one that gets its name at the end."""
    if os.path.isdir(path):
        yield path
        return
    parent = path.absolute().parent
    if os.path.lexists(path):
        raise AliasfixError(f"{path} is no directory")
    if not os.path.isdir(parent):
        raise AliasfixError(f"no such directory: {parent}")
    temporary = parent / f".aliasfix-{secrets.token_hex(6)}.tmp"
    try:
        temporary.mkdir()
        yield temporary
        saving.sync(temporary)
        os.rename(temporary, path)  # fails where another process was first with a directory that is not empty
        saving.sync(parent)
    except OSError as error:
        raise AliasfixError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
