"""Change one function call inside a method: evaluate it at another stride, blur it, or replace it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import AliasfixError
from ..layers.resampling import Resampling
from ..layers.substitution import Substitution
from ..planning.rule import Function, Rule, by_name
from ..tracing.trace import Trace
from .edit import Build, Edit, Undo
from .inserted import check_host, insert, remove_all
from .methods import Rewritten, find_rewritten, rewritten


@dataclass(frozen=True)
class CallEdit(Edit):
    """A change to the ``index``-th call of ``op`` in the module's ``method``.

    In training it is the ``training``-th call. The numbers count from 0; -1 if the call does not run in that mode.
    """

    method: str
    op: str
    index: int
    training: int

    @property
    def known(self) -> Rule | None:
        """The rule that carries out the edit, None if it needs none."""
        return None

    @property
    def innermost(self) -> bool:
        """Whether the edit replaces the function itself, inside of all other edits of the call."""
        return False

    @property
    def begins(self) -> bool:
        """Whether the method begins a pass of the model."""
        return False

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """Return the function with this edit applied.

        Args:
            func: the function, to which other edits may be applied already.
            rule: `known`, looked up beforehand.
            layer: the inserted layer, None if there is none.
        """
        raise NotImplementedError

    def layer(self, module: nn.Module, build: Build) -> nn.Module | None:
        """Return the layer to insert, None if there is none."""
        return None if self.inserted is None else build(module, self.inserted, False)

    def invocations(self, trace: Trace) -> int:
        """Return the number of calls of the method."""
        return trace.invocations[self.path, self.method]

    def check(self, module: nn.Module) -> None:
        """Check that the rule and the method exist, and that the module can hold the layer."""
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
        """Whether the rewritten method is there, or wrapped in another function."""
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
class BeginPass(CallEdit):
    """Begin a pass with the method, in which the layers of adaptive phase share what they decide; edits no call."""

    @property
    def begins(self) -> bool:
        """Yes."""
        return True


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
        """Return the call at the stride."""

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
        """Return the call with the blur before or after it."""

        def after(*args: Any, **kwargs: Any) -> Any:
            return layer(func(*args, **kwargs))

        def before(*args: Any, **kwargs: Any) -> Any:
            if args:
                return func(layer(args[0]), *args[1:], **kwargs)
            return func(**{**kwargs, "input": layer(kwargs["input"])})

        return after if self.where == "after" else before


@dataclass(frozen=True)
class ReplaceCall(RuleEdit):
    """Evaluate the call together with its blur, or, if ``instead``, replace the call by the blur."""

    instead: bool
    blur: Resampling

    @property
    def place(self) -> str:
        """After the call, or in its place."""
        return f"{'in place of' if self.instead else 'after'} {self.op} in {super().place}"

    def layer(self, module: nn.Module, build: Build) -> nn.Module:
        """Return the layer, which enlarges if it replaces an operation that does."""
        return build(module, self.blur, self.known.enlarges)

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """Return the rule's function with the blur."""
        put = rule.replace if self.instead else rule.blurred

        def replaced(*args: Any, **kwargs: Any) -> Any:
            return put(self.op, func, rule.bind(self.op, args, kwargs), layer)

        return replaced


@dataclass(frozen=True)
class SubstituteCall(RuleEdit):
    """Replace a call that does not sample by the rule's substitute."""

    @property
    def innermost(self) -> bool:
        """It replaces the function."""
        return True

    @property
    def place(self) -> str:
        """In place of the call."""
        return f"in place of {self.op} in {super().place}"

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """Return the rule's substitute."""

        def substituted(*args: Any, **kwargs: Any) -> Any:
            return rule.substitute(self.op, func, rule.bind(self.op, args, kwargs))

        return substituted


@dataclass(frozen=True)
class InsertCall(RuleEdit):
    """Replace a call that does not sample by a layer."""

    substitution: Substitution

    @property
    def innermost(self) -> bool:
        """It replaces the function."""
        return True

    @property
    def inserted(self) -> Substitution:
        """The specification of the layer."""
        return self.substitution

    @property
    def place(self) -> str:
        """In place of the call."""
        number = max(self.index, self.training)
        nth = f" (number {number + 1})" if number else ""
        return f"{self.substitution.kind}, in place of {self.op}{nth} in {super().place}"

    def around(self, func: Function, rule: Any, layer: Any) -> Callable[..., Any]:
        """Return the call by the layer."""

        def through(*args: Any, **kwargs: Any) -> Any:
            return rule.through(self.op, func, rule.bind(self.op, args, kwargs), layer)

        return through
