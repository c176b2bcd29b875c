"""The base class of edits: check, apply, undo, JSON, and the description of the place."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ..errors import AliasfixError
from ..layers.resampling import Resampling
from ..layers.substitution import Substitution
from ..tracing.trace import Trace

Build = Callable[[nn.Module, Resampling | Substitution, bool], nn.Module]
"""Builds the layer for a module and its specification; the last argument is whether the layer enlarges."""
Undo = Callable[[], None]


@dataclass(frozen=True)
class Edit(ABC):
    """One change to one module of a model.

    Args:
        path: the module.
    """

    kinds: ClassVar[dict[str, type["Edit"]]] = {}

    path: str

    def __init_subclass__(cls) -> None:
        Edit.kinds[cls.__name__] = cls

    @property
    def inserted(self) -> Resampling | Substitution | None:
        """What the inserted layer does: the ``blur`` of edits that have one, else None."""
        return getattr(self, "blur", None)

    @property
    def place(self) -> str:
        """Where the edit acts, in words."""
        return self.path or "the model"

    @abstractmethod
    def invocations(self, trace: Trace) -> int:
        """Return how often a pass reaches the place of the edit."""

    @abstractmethod
    def check(self, module: nn.Module) -> None:
        """Raise an AliasfixError if the edit does not fit the module; change nothing."""

    @abstractmethod
    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Change the module, and return a function that undoes the change."""

    @abstractmethod
    def holds(self, module: nn.Module) -> bool:
        """Whether the module still has the edit."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """What the edit leaves in the module."""

    @abstractmethod
    def undo(self, module: nn.Module) -> None:
        """Undo the change, also on a copy or in another process."""

    def find(self, model: nn.Module) -> nn.Module:
        """Return the module of ``model`` that the edit changes.

        Raises:
            AliasfixError: the model has no such module.
        """
        try:
            return model.get_submodule(self.path)
        except AttributeError:
            raise AliasfixError(f"the plan edits {self.path!r}, which this model does not have (any more)") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the edit as a dict for JSON."""
        return {"kind": type(self).__name__} | dataclasses.asdict(self)


def from_dict(data: Mapping[str, Any]) -> Edit:
    """Return the edit that `Edit.to_dict` wrote.

    Raises:
        KeyError, TypeError: ``data`` is not an edit.
    """
    fields: dict[str, Any] = {key: _frozen(value) for key, value in data.items()}
    if isinstance(blur := fields.get("blur"), dict):
        fields["blur"] = Resampling(**{key: _frozen(value) for key, value in blur.items()})
    if isinstance(layer := fields.get("substitution"), dict):
        fields["substitution"] = Substitution(**{key: _frozen(value) for key, value in layer.items()})
    return Edit.kinds[str(fields.pop("kind"))](**fields)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
