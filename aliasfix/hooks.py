"""How an inserted blur is reached at run time.

Each hook finds its blur by name in the module it is called with, so that a deep copy uses its own. Classes
instead of closures, so that a converted model can be pickled.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from .plan import BlurCall, DenseCall, ReplaceCall
from .rule import Rule, by_op


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


CallEdit = DenseCall | BlurCall | ReplaceCall


class Rewritten:
    """A method of one module, some of whose function calls are rewritten.

    It stands in the instance's ``__dict__`` and so before the class's method, whoever calls it (``model(x)`` as
    well as ``model.forward_features(x)``).
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        self.module = module
        self.method = method
        self.edits: dict[str, dict[tuple[bool, int], list[tuple[CallEdit, str, Rule | None]]]] = {}

    def add(self, edit: CallEdit, blur: str) -> None:
        """Act on one call of ``edit.op`` too, with the child named ``blur``."""
        rule = by_op().get(edit.op)
        calls = self.edits.setdefault(edit.op, {})
        for training, index in ((False, edit.index), (True, edit.training)):
            calls.setdefault((training, index), []).append((edit, blur, rule))

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(getattr(type(self.module), self.method).__get__(self.module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The method, listening to its function calls."""
        with _Rewriting(self):
            return getattr(type(self.module), self.method)(self.module, *args, **kwargs)


class _Rewriting(TorchFunctionMode):
    def __init__(self, method: Rewritten) -> None:
        super().__init__()
        self.method = method
        self.counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = getattr(func, "__name__", "")
        if op not in self.method.edits:
            return func(*args, **kwargs)
        index = self.counts[op]
        self.counts[op] += 1
        for edit, name, rule in self.method.edits[op].get((self.method.module.training, index), ()):
            func = _rewritten(func, edit, getattr(self.method.module, name, None), rule)
        return func(*args, **kwargs)


def _rewritten(func: Callable[..., Any], edit: CallEdit, blur: Any, rule: Any) -> Callable[..., Any]:
    """The function with one edit around it."""

    def rewritten(*args: Any, **kwargs: Any) -> Any:
        if isinstance(edit, BlurCall):
            return blur(func(*args, **kwargs)) if edit.where == "after" else func(*_first(blur, args, kwargs), **kwargs)
        bound = rule.bind(edit.op, args, kwargs)
        if isinstance(edit, ReplaceCall):
            return (rule.replace if edit.instead else rule.blurred)(func, bound, blur)
        return rule.dense(func, bound, edit.stride, edit.wrap)

    return rewritten


def _first(blur: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The positional arguments with the first one blurred, wherever it was given."""
    return (blur(args[0] if args else kwargs.pop("input")), *args[1:])
