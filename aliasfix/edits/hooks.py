"""Blur what a module returns, or is given, by a hook.

A hook finds its blur by name in the module it is called with, so that a deep copy uses its own. Hooks are classes
instead of closures, so that a converted model can be pickled.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..layers.resampling import Resampling
from ..tracing.trace import Trace
from .edit import Build, Edit, Undo
from .inserted import check_host, insert, remove, remove_all


class BlurAfter:
    """A forward hook that blurs what a module returns."""

    def __init__(self, blur: str) -> None:
        self.blur = blur

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The blurred output."""
        return getattr(module, self.blur)(output)


class BlurBefore:
    """A forward pre-hook that blurs one positional argument of a module."""

    def __init__(self, blur: str, arg: int) -> None:
        self.blur = blur
        self.arg = arg

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with the blurred one in its place."""
        return (*args[: self.arg], getattr(module, self.blur)(args[self.arg]), *args[self.arg + 1 :])


@dataclass(frozen=True)
class BlurModule(Edit):
    """Blur what the module at ``path`` returns (``where="after"``) or its ``arg``-th argument (``"before"``)."""

    where: str
    arg: int
    blur: Resampling

    @property
    def place(self) -> str:
        """Before or after the module."""
        return f"{self.where} {super().place}"

    def invocations(self, trace: Trace) -> int:
        """The calls of the module."""
        return trace.calls(self.path)

    def check(self, module: nn.Module) -> None:
        """The module may get a child."""
        check_host(self.path, module)

    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Insert the blur, and register the hook that calls it.

        The blur keeps the hook's handle, because unpickling a handle reserves the hook's id. In a new process ids start
        from 0, and another hook would otherwise overwrite this one.
        """
        layer: Any = build(module, self.blur, False)
        name = insert(module, layer)
        layer.handle = (
            module.register_forward_hook(BlurAfter(name))
            if self.where == "after"
            else module.register_forward_pre_hook(BlurBefore(name, self.arg), prepend=True)
        )
        return lambda: remove(module, name)

    def holds(self, module: nn.Module) -> bool:
        """The hook is registered."""
        after = self.where == "after"
        hooks, kind = (module._forward_hooks, BlurAfter) if after else (module._forward_pre_hooks, BlurBefore)
        return len([hook for hook in hooks.values() if isinstance(hook, kind)]) > 0

    @property
    def mark(self) -> str:
        """The blur."""
        return "its blur"

    def undo(self, module: nn.Module) -> None:
        """Remove the blur and its hook."""
        remove_all(module)
