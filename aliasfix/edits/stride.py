"""Set the stride of a layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import AliasfixError
from ..tracing.trace import Trace
from .edit import Build, Edit, Undo


@dataclass(frozen=True)
class Restride(Edit):
    """Set the stride of the module at ``path``, which ``was`` another before."""

    stride: tuple[int, ...]
    was: tuple[int, ...]

    def invocations(self, trace: Trace) -> int:
        """Return the number of calls of the module."""
        return trace.calls(self.path)

    def check(self, module: nn.Module) -> None:
        """Check that the module has the stride that the plan expects."""
        if _flat(getattr(module, "stride", ())) != _flat(self.was):
            raise AliasfixError(
                f"{self.path}: the plan expects stride {self.was}, the module has {getattr(module, 'stride', None)}"
            )

    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Set the stride."""
        _set(module, self.stride)
        return lambda: _set(module, self.was)

    def holds(self, module: nn.Module) -> bool:
        """The stride is what was set."""
        return _flat(getattr(module, "stride", ())) == _flat(self.stride)

    @property
    def mark(self) -> str:
        """The stride."""
        return f"stride {self.stride}"

    def undo(self, module: nn.Module) -> None:
        """Restore the stride."""
        _set(module, self.was)


def _set(module: Any, stride: tuple[int, ...]) -> None:
    """Set the stride as one number or one per axis, whichever the module has."""
    module.stride = stride[0] if isinstance(module.stride, int) else stride


def _flat(stride: int | Iterable[int]) -> tuple[int, ...]:
    parts = (stride,) if isinstance(stride, int) else tuple(stride or ())
    return parts[:1] if len(set(parts)) == 1 else parts
