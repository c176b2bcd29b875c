"""Count the invocations of a model's methods, and the function calls in each."""

import contextlib
import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType, FunctionType
from typing import Any

from torch import nn

from .operation import Extent

_METHODS = (FunctionType, functools.partialmethod)


@dataclass
class _Invocation:
    """A running method of a module, and how often it has called each function."""

    path: str
    method: str
    calls: Counter[str] = field(default_factory=Counter)


class Invocations:
    """Counts the invocations that a rewritten method would see.

    A rewritten method is an attribute of the instance, which Python finds before the method of the class. Counting sets
    such attributes, too. A call by ``super()``, or of a method that was bound earlier, is therefore no invocation: its
    function calls belong to the methods around it.

    Args:
        totals: receives the number of invocations by path and method, without those that call no function.
    """

    def __init__(self, totals: Counter[tuple[str, str]]) -> None:
        self._totals = totals
        self._running: list[_Invocation] = []  # outermost first
        self._named: dict[type[nn.Module], list[str]] = {}

    @contextlib.contextmanager
    def counted(self, model: nn.Module) -> Iterator[None]:
        """Count the invocations of the methods of every module."""
        with contextlib.ExitStack() as stack:
            for path, module in model.named_modules():
                for name in self._methods(module):
                    method = self._counting(path, name, getattr(module, name))
                    stack.callback(_set(module.__dict__, name, method))
            yield

    def extents(self, op: str) -> tuple[Extent, ...]:
        """The running invocations, innermost first, each with the number of this call of ``op`` in it."""
        found = []
        for running in reversed(self._running):
            if not running.calls:
                self._totals[running.path, running.method] += 1
            found.append(Extent(running.path, running.method, running.calls[op]))
            running.calls[op] += 1
        return tuple(found)

    def caller(self) -> str:
        """The function that makes a call outside of every invocation; empty inside of one."""
        if self._running:
            return ""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(("torch.", "aliasfix.tracing.")):
            frame = frame.f_back
        return "" if frame is None else getattr(frame.f_code, "co_qualname", frame.f_code.co_name)

    def _methods(self, module: nn.Module) -> list[str]:
        """The methods of the class, and a ``forward`` that was set on the instance."""
        own = module.__dict__
        names = [name for name in self._names(type(module)) if name not in own]
        return [*names, "forward"] if callable(own.get("forward")) else names

    def _names(self, cls: type[nn.Module]) -> list[str]:
        """The methods of a class but for those that every module has; of these ``forward`` alone."""
        if cls not in self._named:
            own = [name for name in dir(cls) if name == "forward" or not (name[:2] == "__" or hasattr(nn.Module, name))]
            self._named[cls] = [name for name in own if isinstance(inspect.getattr_static(cls, name, None), _METHODS)]
        return self._named[cls]

    def _counting(self, path: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def counting(*args: Any, **kwargs: Any) -> Any:
            self._running.append(_Invocation(path, name))
            try:
                return method(*args, **kwargs)
            finally:
                self._running.pop()

        return counting


def _set(attributes: dict[str, Any], name: str, value: Any) -> Callable[[], Any]:
    """Set an attribute, and return what puts back the one from before."""
    before = attributes.get(name)
    attributes[name] = value
    return functools.partial(attributes.pop if before is None else attributes.__setitem__, name, before)
