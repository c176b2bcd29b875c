"""Read a checkpoint.

Weights come bare, or in an entry of what a trainer saved: timm's and torchvision's names of that entry are
looked for in timm's order, the averaged weights (EMA) first; else it is the only one with weights. A conversion changes
neither keys nor tensors, so a checkpoint is kept as it was read: `aliasfix.loading` loads it into a model, and
`aliasfix.saving` writes it back with the recipe beside.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..edits.inserted import is_inserted
from ..errors import AliasfixError, explaining
from ..text.wording import listing
from .formats.format import Format, formats, of
from .record import Record

State = Mapping[str, Any]
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
RECORD = "aliasfix"
_ANY = ".pth"  # what torch.save writes may have any name


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, with everything else that it holds.

    Args:
        path: the file, for messages.
        content: the file's entries, the record as ``aliasfix``; bare weights become the entry ``state_dict``.
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
    return {str(name) for name in names if is_inserted(str(name))}


def read_checkpoint(path: str | Path, trust: bool = False) -> Checkpoint:
    """Read a file in the format that its name ends in; all other names are of what ``torch.save`` wrote.

    Args:
        path: the file.
        trust: also read a pickle that holds code, which runs it.

    Raises:
        AliasfixError: no such file, a damaged one, one without weights, or one that holds code.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, it raises nothing
        raise AliasfixError(f"{path} is a directory" if os.path.isdir(path) else f"no such file: {path}")
    form = of(path) or formats()[_ANY]
    with reading(path, form):
        return form.read(path, trust)


@contextlib.contextmanager
def reading(path: Path, form: Format) -> Iterator[None]:
    """Whatever a format raises becomes one line."""
    with explaining(f"{path} is damaged, or no {form.name} file"):
        yield


def unwrapped(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint of what a trainer saved, or of bare weights.

    Args:
        path: of the file, for messages.
        content: everything in it.

    Raises:
        AliasfixError: there are no weights in it; names its entries.

    >>> unwrapped(Path("net.pth"), {"model": {"weight": Tensor()}, "epoch": 3}).entry
    'model'
    """
    states = {key: state for key, value in content.items() if isinstance(key, str) and (state := _state(value))}
    bare = _state(content)
    if (entry := next((entry for entry in ENTRIES if entry in states), None)) is None:
        if bare and all(_count(bare) >= _count(state) for state in states.values()):
            return Checkpoint(path, {"state_dict": bare})
        if len(states) > 1:
            raise AliasfixError(f"{path} holds weights in {listing(states, 6)}: give a file with one of them")
        if not states:
            known = listing([str(key) for key in content], 6) or "none"
            raise AliasfixError(f"{path} holds no weights in {', '.join(ENTRIES)}; its entries: {known}")
        (entry,) = states
    return Checkpoint(path, {**content, entry: states[entry]}, entry)


def _state(value: object) -> State | None:
    """Weights, None where something else is given."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    return value if _count(value) else None


def _count(state: Mapping[str, Any]) -> int:
    return sum(isinstance(value, Tensor) for value in state.values())
