"""What a family of models is, and where families are found."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from .. import extension
from ..errors import AliasfixError

GROUP = "aliasfix.families"  # the entry points by which other packages add families

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a model."""
Kind: TypeAlias = Literal["logits", "label map", "dense", "boxes", "keypoints", "pitch"]
"""What a model's output is, of a batch of B inputs:

- ``logits``: (B, classes);
- ``label map``: scores (B, classes, …) of every position; of one channel, positive is the class;
- ``dense``: values (B, C, …) of every position, such as depth, an image or a signal, or several of such maps;
- ``boxes``: for each input a dict of ``boxes`` (n, 4), x₁ y₁ x₂ y₂ in its pixels, ``scores`` (n,) and ``labels`` (n,),
  with ``masks`` (n, H, W) or (n, 1, H, W) where there are any;
- ``keypoints``: the same with ``keypoints`` (n, K, 2 or 3), x y in its pixels;
- ``pitch``: the salience (B, bins) of pitches 20 cents apart.
"""


def _as_it_is(model: nn.Module, result: Any, images: Tensor) -> Any:
    return result


def _nothing(model: nn.Module) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def backbone(model: nn.Module) -> Sequence[str]:
    """The outermost module that is called ``backbone``."""
    return [path for path, _ in model.named_modules() if path.rpartition(".")[2] == "backbone"][:1]


@dataclass(frozen=True)
class Family:
    """Models that are called in the same way and return the same kind of thing.

    Families are the names ``FAMILIES`` of the files in ``aliasfix/families/``, and what entry points of the group
    ``aliasfix.families`` name. The first that has a model is its family.

    Args:
        name: what it is called in messages.
        classes: patterns of the classes, ``module.Class``, so that their library need not be imported. Subclasses
            belong, too.
        kind: what the output is; None where its shape tells.
        read: makes the output of it, as `Kind` describes it, given the model, what it returned for a batch, and the
            batch.
        features: names the modules that return the maps of backbone and neck: what is compared where the output is
            objects.
        images: values of `aliasfix.Preprocessing` for a folder's images, where they are not those of ImageNet.
        finds: whether the operations that run depend on the objects found in the images, not on shapes alone.
        targets: makes up the arguments that training needs after the images; none if the input has them. None: training
            needs none.
        steady: a context in which training makes the choices of evaluation, where it would make random ones.
    """

    name: str
    classes: tuple[str, ...]
    kind: Kind | None = None
    read: Callable[[nn.Module, Any, Tensor], Any] = _as_it_is
    features: Callable[[nn.Module], Sequence[str]] = backbone
    images: Mapping[str, Any] = field(default_factory=dict)
    finds: bool = False
    targets: Callable[[nn.Module, Inputs], tuple[Any, ...]] | None = None
    steady: Callable[[nn.Module], AbstractContextManager[None]] = _nothing

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in get_args(Kind):
            raise AliasfixError(f"{self.name}: no kind {self.kind!r}; there are {', '.join(get_args(Kind))}")

    def has(self, of: type[nn.Module]) -> bool:
        """Whether the models of a class belong to it."""
        names = [f"{cls.__module__}.{cls.__qualname__}" for cls in of.__mro__]
        return any(fnmatchcase(name, pattern) for pattern in self.classes for name in names)


@functools.cache
def families() -> Sequence[Family]:
    """Every family, in the order of the file names; those of other packages come first.

    Raises:
        AliasfixError: another package's family does not load.

    >>> len({family.name for family in families()}) == len(families()) > 8
    True
    """
    found = []
    for whose, family in extension.registered(GROUP, "the family"):
        if not isinstance(family, Family):
            raise AliasfixError(f"{whose} is a {type(family).__name__}: make it an aliasfix.families.Family")
        found.append(family)
    for module in extension.modules("aliasfix.families"):
        found += getattr(module, "FAMILIES", ())
    return found


def of(model: object) -> Family | None:
    """Return the family of a model, None if it belongs to none.

    >>> of(nn.Sequential()) is None
    True
    """
    if not isinstance(model, nn.Module):
        return None
    if type(model) not in _known:
        _known[type(model)] = next((family for family in families() if family.has(type(model))), None)
    return _known[type(model)]


_known: MutableMapping[type[nn.Module], Family | None] = weakref.WeakKeyDictionary()
