"""Read what a model returned: by its family, by what the user says of it, else by what it looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..errors import AliasfixError, explaining
from .family import Family, Kind, backbone, of

Place: TypeAlias = Callable[[Any], Any] | str | int | None
"""Where the output is in what a model returns: a key or attribute, an index, a function; None: it is it."""
Objects: TypeAlias = Mapping[str, Tensor]
"""The objects found in one input, see `Kind`."""
OBJECTS: tuple[Kind, ...] = ("boxes", "keypoints")
"""The kinds whose output is objects, not tensors."""
_FIELDS = ("boxes", "scores", "labels")


@dataclass(frozen=True)
class Returned:
    """A description of what a model returns, for one of no known family.

    Args:
        kind: ``logits``, ``label map``, ``dense``, ``boxes``, ``keypoints`` or ``pitch``, see
            `aliasfix.families.Kind`; None where the shape tells.
        at: where it is in what the model returns: a key or attribute, an index, or a function of it.
        features: names of the modules that return the maps of backbone and neck, where the output is objects; by
            default the module ``backbone``.

    Raises:
        AliasfixError: there is no such kind.

    >>> Returned("label map", at="out").kind
    'label map'
    """

    kind: Kind | None = None
    at: Place = None
    features: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in get_args(Kind):
            raise AliasfixError(f"no kind of output {self.kind!r}: choose from {', '.join(get_args(Kind))}")


Output: TypeAlias = Returned | Place
"""What a model returns: a `Returned`, or where it is; None: as its family says, else it is it."""


@dataclass(frozen=True)
class Answer:
    """What a model says of B inputs.

    Args:
        kind: of what; None for maps of which nobody said whether they are classes or values.
        maps: tensors (B, …) in float32 or wider, one but for several ``dense`` maps; none where it is objects.
        objects: those of each input, B of them.
    """

    kind: Kind | None
    maps: tuple[Tensor, ...] = ()
    objects: tuple[Objects, ...] = ()

    def __str__(self) -> str:
        return " and ".join(str(tuple(one.shape)) for one in self.maps) or str(self.kind)

    @property
    def tensor(self) -> Tensor:
        """The only tensor.

        Raises:
            AliasfixError: it is several, or objects.
        """
        if len(self.maps) == 1:
            return self.maps[0]
        what = f"{len(self.maps)} maps" if self.maps else f"{self.kind} for each image"
        raise AliasfixError(
            f"the model returned {what} where one tensor is needed: pass output= a function that makes it"
        )


def read(model: object, result: Any, images: Tensor, output: Output = None, *, values: bool = True) -> Answer:
    """Read what a model returned for a batch.

    Args:
        model: whose family is asked where the user does not say where the output is.
        result: what it returned.
        images: for these.
        output: what the user says.
        values: whether to refuse what has values that cannot be measured.

    Raises:
        AliasfixError: it is nothing that is known: says what it is and how to describe it.

    >>> images = torch.zeros(2, 3, 8, 8)
    >>> read(None, {"out": torch.zeros(2, 5, 8, 8)}, images, Returned("label map", at="out")).kind
    'label map'
    >>> read(None, torch.zeros(2, 10), images).kind
    'logits'
    """
    said = output if isinstance(output, Returned) else Returned(at=output)
    family = of(model) if said.at is None else None
    kind = said.kind or (family.kind if family is not None else None)
    value = _taken(result, said.at) if family is None else _read_by(family, model, result, images)
    if isinstance(value, Tensor):
        value = (value,)
    elif family is None and not _are_objects(value):
        raise AliasfixError(f"the model returned {_described(value)}")
    if kind in OBJECTS or (kind is None and _are_objects(value)):
        return Answer(_object_kind(kind, value), objects=tuple(_checked_objects(value, len(images))))
    maps = tuple(_checked(one, len(images)) if values else one for one in value)
    classes = maps[0].ndim == 2 and maps[0].shape != images.shape
    return Answer(kind or ("logits" if classes else None), maps)


def feature_modules(model: nn.Module, output: Output = None) -> Sequence[str]:
    """The modules that return the maps of backbone and neck of a network that finds objects.

    Raises:
        AliasfixError: nobody says which.
    """
    said = output.features if isinstance(output, Returned) else ()
    family = of(model)
    found = said or (backbone(model) if family is None else family.features(model))
    names = {path for path, _ in model.named_modules()}
    if not found or (missing := [path for path in found if path not in names]):
        what = f"has no module {missing[0]}" if found else "has no module called backbone"
        raise AliasfixError(
            f"{type(model).__name__} {what}: pass output=aliasfix.Returned('boxes', features=[...]) with the names of "
            "those that return the maps of its backbone and neck"
        )
    return found


def _read_by(family: Family, model: Any, result: Any, images: Tensor) -> Any:
    what = f"{family.name} do not return a {type(result).__name__} as {type(model).__name__} did"
    with explaining(what, "pass output= where the output is, or aliasfix.Returned(kind, at)"):
        return family.read(model, result, images)


def _taken(result: Any, at: Place) -> Any:
    """The part of what a model returned that is meant."""
    try:
        if callable(at):
            return at(result)
        if isinstance(at, int):
            return result[at]
        if at is not None:
            return result[at] if isinstance(result, Mapping) else getattr(result, at)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        name = getattr(at, "__name__", repr(at))
        raise AliasfixError(
            f"output={name} is not in the {type(result).__name__} that the model returned: {_described(result)}"
        ) from error
    return result


def _described(result: Any) -> str:
    """What was returned, and how to describe it."""
    if isinstance(result, Tensor):
        return f"a tensor {tuple(result.shape)}: leave output= out"
    if isinstance(result, Mapping):
        first = next((key for key, value in result.items() if isinstance(value, Tensor)), "key")
        return f"a dict with {', '.join(map(repr, result))}: pass output={first!r}, or another key"
    if isinstance(result, tuple | list) and any(isinstance(one, Tensor) for one in result):
        return f"a {type(result).__name__} of {len(result)}: pass output=0, or another index"
    return (
        f"a {type(result).__name__}: pass output= a function that makes one tensor (B, ...) of it, or, of a detector, "
        "for each image a dict of boxes (n, 4), scores (n,) and labels (n,)"
    )


def _are_objects(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(one, Mapping) and all(isinstance(one.get(key), Tensor) for key in _FIELDS) for one in value)
    )


def _object_kind(kind: Kind | None, value: Sequence[Objects]) -> Kind:
    return kind or ("keypoints" if "keypoints" in value[0] else "boxes")


def _checked_objects(value: Any, count: int) -> Sequence[Objects]:
    if not _are_objects(value) or len(value) != count:
        found = f"{len(value)} of them for {count}" if _are_objects(value) else f"a {type(value).__name__}"
        raise AliasfixError(
            f"boxes are a list with a dict of boxes (n, 4), scores (n,) and labels (n,) for each image, not {found}"
        )
    for one in value:
        if any(one[key].shape[:1] != one["boxes"].shape[:1] for key in _FIELDS) or one["boxes"].shape[1:] != (4,):
            shapes = ", ".join(f"{key} {tuple(one[key].shape)}" for key in _FIELDS)
            raise AliasfixError(f"the objects of an image are {shapes}, not (n, 4), (n,) and (n,)")
    found_objects: Sequence[Objects] = value
    return found_objects


def _checked(result: Tensor, count: int) -> Tensor:
    if result.shape[:1] != (count,):
        raise AliasfixError(f"the model returned {tuple(result.shape)} for a batch of {count} images")
    if result.is_complex():
        raise AliasfixError("the model returned complex numbers: pass output= a function that makes them real")
    if result.isnan().any():
        bad = int(result.isnan().flatten(1).any(1).sum())
        raise AliasfixError(f"the model returned NaN for {bad} of {count} inputs")
    return result.to(torch.promote_types(result.dtype, torch.float32))
