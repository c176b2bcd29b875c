"""Load the weights of a checkpoint into a model, and say what does not fit."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import AliasfixError
from ..text.wording import listing, one_line
from . import prefixes
from .checkpoint import Checkpoint, State

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # in the file, in the model


class MisfitError(AliasfixError):
    """A checkpoint that holds the weights of another model."""


def load_weights(model: nn.Module, checkpoint: Checkpoint, name: str = "the model") -> str:
    """Load a checkpoint's weights into a model, strictly but for a prefix of their keys, see `aliasfix.files.prefixes`.

    Args:
        model: the one to change; if the weights do not fit, it is left in between.
        checkpoint: any that `read_checkpoint` returned.
        name: the model's, for messages.

    Returns:
        What the user should know of that prefix, in words; "" if nothing.

    Raises:
        MisfitError: keys that are missing, unexpected or of another shape.
    """
    own = model.state_dict()
    found = prefixes.match(checkpoint, own)
    state = versioned(found.state, own)
    shapes = {
        key: (tuple(value.shape), tuple(own[key].shape))
        for key, value in state.items()
        if isinstance(value, Tensor) and key in own and not is_lazy(own[key]) and value.shape != own[key].shape
    }
    fitting = _like(state, {key: value for key, value in state.items() if key not in shapes})
    try:
        # torch decides what is missing: hooks of the model may rename keys of older versions
        missing, unexpected = model.load_state_dict(fitting, strict=False)
    except Exception as error:  # hooks of the model may raise anything
        raise MisfitError(f"{checkpoint.path} does not fit {name}: {one_line(error)}") from error
    missing = [key for key in missing if key not in shapes]
    if missing or unexpected or shapes:
        text = _misfit(missing, unexpected, shapes)
        raise MisfitError(
            "; ".join([f"{checkpoint.path} does not fit {name}: keys {text}", *filter(None, [found.remark])])
        )
    return found.remark if found.prefix else ""


def versioned(state: State, own: State) -> State:
    """Weights with the versions of a model's modules, where the file has none: safetensors has no place for them.

    Without them torch takes a file for one of its oldest, which torchvision's MNASNet refuses; a file whose keys are
    those of the model is none.
    """
    if hasattr(state, "_metadata") or state.keys() != own.keys():
        return state
    return prefixes.with_versions(state, getattr(own, "_metadata", {}))


def _misfit(missing: list[str], unexpected: list[str], shapes: Shapes) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({listing(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({listing(unexpected)})")
    if shapes:
        changes = [f"{key} {_size(given)} for {_size(own)}" for key, (given, own) in shapes.items()]
        parts.append(f"{len(shapes)} of another shape ({listing(changes)})")
    text = ", ".join(parts)
    classes = None if missing or unexpected else _classes(shapes)
    return text if classes is None else f"{text}; only the head differs: --arg num_classes={classes}"


def _classes(shapes: Shapes) -> int | None:
    """The number of outputs of a head, if all that differs are layers of one other number of outputs."""
    alike = all(
        given[1:] == own[1:] and key.rpartition(".")[2] in ("weight", "bias") for key, (given, own) in shapes.items()
    )
    outputs = {(given[:1], own[:1]) for given, own in shapes.values()}
    return outputs.pop()[0][0] if alike and len(outputs) == 1 else None


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _like(state: State, items: dict[str, Any]) -> State:
    """Items with the versions that ``state`` has."""
    versions = getattr(state, "_metadata", None)
    return OrderedDict(items) if versions is None else prefixes.with_versions(items, versions)
