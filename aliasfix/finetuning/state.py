"""Where a run stands, on the disk: written whole or not at all, read without running code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import surgery
from ..errors import AliasfixError, explaining
from ..files import saving, store
from ..files.checkpoint import Checkpoint
from ..files.record import Record

NAME = "state.pth"
BEST = "best.safetensors"


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace the state in a folder."""
    with saving.replacing(folder / NAME) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def read(folder: Path, resume: bool) -> dict[str, Any] | None:
    """The state in a folder, None where a run starts.

    Raises:
        AliasfixError: there is one and it is not asked for, or it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        if (folder / BEST).exists() and not resume:
            raise AliasfixError(f"{folder} holds {BEST} of another run: give another folder")
        return None
    if not resume:
        raise AliasfixError(f"{folder} holds a run: go on with it (resume=True, --resume), or give another folder")
    with explaining(f"{path} is damaged, or no state of a run"):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def compare(folder: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with something else than what was begun.

    Raises:
        AliasfixError: an option, the data or the original is another one.
    """
    for name, value in now.items():
        if stored.get(name) != value:
            raise AliasfixError(
                f"{folder} holds a run with {name}={stored.get(name)!r}, not {value!r}: "
                f"go on with what it was begun with, or give another folder"
            )


def keep(model: nn.Module, path: Path, example: Tensor) -> None:
    """Write the weights, with how the model was made as far as that is known."""
    plan, file = surgery.executed(model), Checkpoint(path, {"state_dict": model.state_dict()})
    if plan is None:
        saving.write_checkpoint(path, file, None)
        return
    try:
        store.save(model, path, example_input=example)
    except AliasfixError:  # its base builds it no more, as where a layer was exchanged
        store.write_converted(path, False, file, model, Record(plan, None), example)
