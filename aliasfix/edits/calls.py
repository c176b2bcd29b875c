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
from .methods import Rewritten, rewritten


@dataclass(frozen=True)
class CallEdit(Edit):
    """A change to the ``index``-th call of ``op`` in the module's ``method``.

    In training it is the ``training``-th; -1 where it does not run in that mode.
    """

    method: str
    op: str
    index: int
    training: int

    def around(self, func: Function, rule: Rule | None, layer: Any) -> Callable[..., Any]:
        """The function with this edit around it.

        Args:
            func: what is called, with other edits around it already.
            rule: of the function; None where no rule knows it.
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
        """The module has the method, and may get a child where a layer is inserted."""
        if self.inserted is not None:
            check_host(self.path, module)
        if not hasattr(type(module), self.method):
            raise AliasfixError(f"{self.path}: {type(module).__name__} has no method {self.method!r}")

    def apply(self, module: nn.Module, build: Build) -> Undo:
        """Put a rewritten method before the class's own."""
        layer = self.layer(module, build)
        name = "" if layer is None else insert(module, layer)
        method = module.__dict__.get(self.method)
        edits = method.edits if isinstance(method, Rewritten) else ()
        module.__dict__[self.method] = rewritten(module, self.method, (*edits, (self, name)))
        return lambda: self.undo(module)

    def undo(self, module: nn.Module) -> None:
        """Take the rewritten method away, and every layer that it used."""
        module.__dict__.pop(self.method, None)
        remove_all(module)


@dataclass(frozen=True)
class DenseCall(CallEdit):
    """Evaluate the call at ``stride``, with its borders wrapped around if ``wrap``, as its rule says."""

    rule: str
    stride: tuple[int, ...]
    wrap: bool

    def around(self, func: Function, rule: Rule | None, layer: Any) -> Callable[..., Any]:
        """The call at the stride."""
        known = _known(rule, self)

        def dense(*args: Any, **kwargs: Any) -> Any:
            return known.dense(self.op, func, known.bind(self.op, args, kwargs), self.stride, self.wrap)

        return dense


@dataclass(frozen=True)
class BlurCall(CallEdit):
    """Blur the result of the call (``where="after"``) or its input (``"before"``)."""

    where: str
    blur: Resampling

    @property
    def inserted(self) -> Resampling:
        """The blur."""
        return self.blur

    @property
    def place(self) -> str:
        """Before or after the call."""
        number = max(self.index, self.training)
        nth = f" (number {number + 1})" if number else ""
        return f"{self.where} {self.op}{nth} in {super().place}.{self.method}"

    def around(self, func: Function, rule: Rule | None, layer: Any) -> Callable[..., Any]:
        """The call with the blur before or after it."""

        def after(*args: Any, **kwargs: Any) -> Any:
            return layer(func(*args, **kwargs))

        def before(*args: Any, **kwargs: Any) -> Any:
            if args:
                return func(layer(args[0]), *args[1:], **kwargs)
            return func(**{**kwargs, "input": layer(kwargs["input"])})

        return after if self.where == "after" else before


@dataclass(frozen=True)
class ReplaceCall(CallEdit):
    """Put what the rule says, with a blur in it, in the place of the call.

    That is the operation, evaluated densely and blurred at once, or, if ``instead``, the blur without it.
    """

    rule: str
    instead: bool
    blur: Resampling

    @property
    def inserted(self) -> Resampling:
        """The blur."""
        return self.blur

    @property
    def place(self) -> str:
        """After the call, or in its place."""
        return f"{'in place of' if self.instead else 'after'} {self.op} in {super().place}"

    def layer(self, module: nn.Module, build: Build) -> nn.Module:
        """The layer, which enlarges where it replaces an operation that does."""
        return build(module, self.blur, by_name(self.rule).enlarges)

    def around(self, func: Function, rule: Rule | None, layer: Any) -> Callable[..., Any]:
        """What the rule puts in the place of the call."""
        known = _known(rule, self)
        put = known.replace if self.instead else known.blurred

        def replaced(*args: Any, **kwargs: Any) -> Any:
            return put(self.op, func, known.bind(self.op, args, kwargs), layer)

        return replaced


def _known(rule: Rule | None, edit: CallEdit) -> Rule:
    if rule is None:
        raise AliasfixError(f"{edit.path}: no rule knows {edit.op}, which the plan edits")
    return rule
