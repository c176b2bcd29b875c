"""Blur the result or an argument of a module by a hook.

A hook finds its blur by name in the module that calls it, so that a deep copy uses its own blur. Hooks are objects, not
closures, so that a converted model can be pickled.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..layers.resampling import Resampling
from ..tracing.trace import Trace
from .edit import Build, Edit, Undo
from .inserted import check_host, insert, remove, remove_all


class BlurAfter:
    """A forward hook that blurs the result of a module."""

    def __init__(self, blur: str) -> None:
        self.blur = blur

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the blurred output."""
        return getattr(module, self.blur)(output)


class BlurBefore:
    """A forward pre-hook that blurs one positional argument of a module."""

    def __init__(self, blur: str, arg: int) -> None:
        self.blur = blur
        self.arg = arg

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with one of them blurred."""
        return (*args[: self.arg], getattr(module, self.blur)(args[self.arg]), *args[self.arg + 1 :])


@dataclass(frozen=True)
class BlurModule(Edit):
    """Blur the result of the module at ``path`` (``where="after"``) or its ``arg``-th argument (``"before"``)."""

    where: str
    arg: int
    blur: Resampling

    @property
    def place(self) -> str:
        """Before or after the module."""
        return f"{self.where} {super().place}"

    def invocations(self, trace: Trace) -> int:
        """Return the number of calls of the module."""
        return trace.calls(self.path)

    def check(self, module: nn.Module) -> None:
        """Check that the module can hold the blur."""
        check_host(self.path, module)

    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Insert the blur, and register the hook that calls it.

        The blur holds the hook's handle, because unpickling a handle reserves the hook's id. Otherwise a later hook
        could overwrite this one in a new process, where ids start from 0.
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
        """Whether the hook is registered."""
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
