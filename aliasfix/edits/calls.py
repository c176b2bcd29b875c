"""Change one function call inside a method: evaluate it at another stride, blur it, or replace it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import AliasfixError
from ..layers.resampling import Resampling
from ..planning.rule import Function, Rule, by_name
from ..tracing.trace import Trace
from .edit import Build, Edit, Undo
from .inserted import check_host, insert, remove_all
from .methods import Rewritten, find_rewritten, rewritten


@dataclass(frozen=True)
class CallEdit(Edit):
    """A change to the ``index``-th call of ``op`` in the module's ``method``.

    In training it is the ``training``-th; -1 where it does not run in that mode.
    """

    method: str
    op: str
    index: int
    training: int

    @property
    def known(self) -> Rule | None:
        """The rule that the edit asks what to do; None where it asks none."""
        return None

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """The function with this edit around it.

        Args:
            func: what is called, with other edits around it already.
            rule: `known`, looked up beforehand.
            layer: the layer that was inserted; None where none was.
        """
        raise NotImplementedError

    def layer(self, module: nn.Module, build: Build) -> nn.Module | None:
        """The layer to insert, None if none."""
        return None if self.inserted is None else build(module, self.inserted, False)

    def invocations(self, trace: Trace) -> int:
        """The calls of the method."""
        return trace.invocations[self.path, self.method]

    def check(self, module: nn.Module) -> None:
        """The module has the method, the rule exists, and the module may get a child where a layer is inserted."""
        _ = self.known
        if self.inserted is not None:
            check_host(self.path, module)
        if not hasattr(type(module), self.method):
            raise AliasfixError(f"{self.path}: {type(module).__name__} has no method {self.method!r}")

    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Put a rewritten method in the place of the method."""
        layer = self.layer(module, build)
        name = "" if layer is None else insert(module, layer)
        before = module.__dict__.get(self.method)
        edits = before.edits if isinstance(before, Rewritten) else ()
        before = before.before if isinstance(before, Rewritten) else before
        module.__dict__[self.method] = rewritten(module, self.method, (*edits, (self, name)), before)
        return lambda: self.undo(module)

    def holds(self, module: nn.Module) -> bool:
        """The rewritten method is there, or inside of a function that was put in its place."""
        return find_rewritten(module.__dict__.get(self.method)) is not None

    @property
    def mark(self) -> str:
        """The method."""
        return f"its rewritten {self.method}"

    def undo(self, module: nn.Module) -> None:
        """Put the method back, and remove every layer that the rewritten one used."""
        found = find_rewritten(module.__dict__.get(self.method))
        if found is not None:
            del module.__dict__[self.method]
            if found.before is not None:
                module.__dict__[self.method] = found.before
        remove_all(module)


@dataclass(frozen=True)
class RuleEdit(CallEdit):
    """A change that the ``rule`` carries out."""

    rule: str

    @property
    def known(self) -> Rule:
        """The rule."""
        return by_name(self.rule)


@dataclass(frozen=True)
class DenseCall(RuleEdit):
    """Evaluate the call at ``stride``, with its borders wrapped around if ``wrap``, as its rule says."""

    stride: tuple[int, ...]
    wrap: bool

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """The call at the stride."""

        def dense(*args: Any, **kwargs: Any) -> Any:
            return rule.dense(self.op, func, rule.bind(self.op, args, kwargs), self.stride, self.wrap)

        return dense


@dataclass(frozen=True)
class BlurCall(CallEdit):
    """Blur the result of the call (``where="after"``) or its input (``"before"``)."""

    where: str
    blur: Resampling

    @property
    def place(self) -> str:
        """Before or after the call."""
        number = max(self.index, self.training)
        nth = f" (number {number + 1})" if number else ""
        return f"{self.where} {self.op}{nth} in {super().place}.{self.method}"

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """The call with the blur before or after it."""

        def after(*args: Any, **kwargs: Any) -> Any:
            return layer(func(*args, **kwargs))

        def before(*args: Any, **kwargs: Any) -> Any:
            if args:
                return func(layer(args[0]), *args[1:], **kwargs)
            return func(**{**kwargs, "input": layer(kwargs["input"])})

        return after if self.where == "after" else before


@dataclass(frozen=True)
class ReplaceCall(RuleEdit):
    """Put what the rule says, with a blur in it, in the place of the call.

    That is the operation, evaluated densely and blurred at once, or, if ``instead``, the blur without it.
    """

    instead: bool
    blur: Resampling

    @property
    def place(self) -> str:
        """After the call, or in its place."""
        return f"{'in place of' if self.instead else 'after'} {self.op} in {super().place}"

    def layer(self, module: nn.Module, build: Build) -> nn.Module:
        """The layer, which enlarges where it replaces an operation that does."""
        return build(module, self.blur, self.known.enlarges)

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """What the rule puts in the place of the call."""
        put = rule.replace if self.instead else rule.blurred

        def replaced(*args: Any, **kwargs: Any) -> Any:
            return put(self.op, func, rule.bind(self.op, args, kwargs), layer)

        return replaced


@dataclass(frozen=True)
class SubstituteCall(RuleEdit):
    """Put what the rule says in the place of a call that does not sample."""

    @property
    def place(self) -> str:
        """In the place of the call."""
        return f"in place of {self.op} in {super().place}"

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """What the rule says."""

        def substituted(*args: Any, **kwargs: Any) -> Any:
            return rule.substitute(self.op, func, rule.bind(self.op, args, kwargs))

        return substituted
