"""Methods with edited function calls.

The forward of a torch layer is a single function call, which is edited directly. In other methods a
``TorchFunctionMode`` counts the calls and edits those that are planned. Both are objects, not closures, so that copies
and pickles keep them.
"""

import functools
import inspect
import sys
from collections.abc import Iterable, Sequence
from types import CodeType, FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import AliasfixError
from ..layers.batches import is_exporting
from ..layers.ladder import Ladder, begun
from ..layers.listeners import Listener, call_paused, listeners
from ..planning.rule import Function, Rule, by_op


class CallEdit(Protocol):
    """A change to one call; see `aliasfix.edits.calls`."""

    @property
    def op(self) -> str:
        """The function's name."""

    @property
    def index(self) -> int:
        """The number of the call in evaluation."""

    @property
    def training(self) -> int:
        """The number of the call in training."""

    @property
    def known(self) -> Rule | None:
        """The rule that carries out the edit."""

    @property
    def innermost(self) -> bool:
        """Whether the edit replaces the function itself, inside of all other edits of the call."""

    @property
    def begins(self) -> bool:
        """Whether the method begins a pass of the model."""

    def around(self, func: Function, rule: Any, layer: Any) -> Function:
        """Return the function with the edit applied."""


def rewritten(
    module: nn.Module, method: str, edits: Sequence[tuple[CallEdit, str]], before: Function | None = None
) -> "Rewritten":
    """Return a method with edited function calls.

    Args:
        module: the owner of the method.
        method: the name of the method.
        edits: the edits, each with the name of its blur, a child of ``module``.
        before: the attribute of the instance that hides the class's method, None if there is none.
    """
    own = before is None and method == "forward"
    layer = own and all(not edit.begins and _of_layer(module, edit.op) for edit, _ in edits)
    return RewrittenLayer(module, method, edits) if layer else Rewritten(module, method, edits, before)


def find_rewritten(function: Any, depth: int = 4) -> "Rewritten | None":
    """Return the rewritten method that a function is or wraps: as a decorator, a partial or a closure."""
    if function is None or isinstance(function, Rewritten):
        return function
    inner = [getattr(function, name, None) for name in ("__wrapped__", "__func__", "func")]
    inner += getattr(function, "args", ())
    if inspect.isfunction(function):
        inner += inspect.getclosurevars(function).nonlocals.values()
    found = (find_rewritten(part, depth - 1) for part in inner if depth > 0)
    return next((rewritten for rewritten in found if rewritten is not None), None)


def _of_layer(module: nn.Module, op: str) -> list[Rule]:
    """Return the rules for which the module's forward is a single call of ``op``."""
    return [rule for rule in by_op().get(op, ()) if rule.is_layer(module)]


class Rewritten:
    """A method of one module with edited function calls.

    It is an attribute of the instance, which Python finds before the method of the class, for ``model(x)`` as well as
    ``model.forward_features(x)``. It has the method's ``__name__``, ``__code__`` and ``__signature__``, which tools
    such as ``torch.export`` read.
    """

    before: Function | None = None

    def __init__(
        self,
        module: nn.Module,
        method: str,
        edits: Sequence[tuple[CallEdit, str]],
        before: Function | None = None,
    ) -> None:
        self.module = module
        self.method = method
        self.before = before
        self.edits = tuple(sorted(edits, key=lambda pair: not pair[0].innermost))  # a blur goes around a substitute
        self.begins = any(edit.begins for edit, _ in edits)
        edits = [(edit, blur) for edit, blur in self.edits if not edit.begins]
        self.evaluation = _by_call((edit, edit.index, blur) for edit, blur in edits)
        self.training = _by_call((edit, edit.training, blur) for edit, blur in edits)
        self.hidden = sorted(_HIDDEN.intersection(self.evaluation))
        self.doubtful = bool(self.hidden) or "interpolate" in self.evaluation

    @property
    def __name__(self) -> str:
        return self.method

    @property
    def __code__(self) -> CodeType:
        function: Any = inspect.unwrap(self.before or getattr(type(self.module), self.method))
        while isinstance(function, functools.partial):
            function = inspect.unwrap(function.func)
        code: CodeType = function.__code__
        return code

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.before or getattr(type(self.module), self.method).__get__(self.module))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method with its edited function calls."""
        if self.begins and (self.method == "forward" or not begun(self.module)):
            with Ladder(self.module) as ladder:
                out = self._run(*args, **kwargs)
            if not torch.compiler.is_compiling():
                ladder.end(out)
            return out
        return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.before is None:
            method, args = getattr(type(self.module), self.method), (self.module, *args)
        else:
            method = self.before
        if not (self.evaluation or self.training):
            return method(*args, **kwargs)
        traced = torch.compiler.is_dynamo_compiling()
        if traced and is_exporting():  # it gives some functions other names and hides torch's layers
            raise AliasfixError("torch.export shows function calls of a converted model with strict=False only")
        if traced and self.hidden:
            raise AliasfixError(
                f"torch.compile does not show calls of {self.hidden[0]}: "
                "give it as a layer, or compile without fullgraph=True"
            )
        if not traced and self.doubtful:
            method = torch.compiler.disable(method)
        mode = _Rewriting(self.module, self.training if self.module.training else self.evaluation)
        with mode:
            out = method(*args, **kwargs)
        if traced and mode.misses("interpolate"):
            raise AliasfixError("torch.compile does not show calls of upsample: call interpolate in its place")
        return out


class RewrittenLayer(Rewritten):
    """The forward of a torch layer, which is a single function call on its attributes: no mode is needed."""

    def __init__(self, module: nn.Module, method: str, edits: Sequence[tuple[CallEdit, str]]) -> None:
        super().__init__(module, method, edits)
        self.op = edits[0][0].op
        self.rule = _of_layer(module, self.op)[0]
        self.calls = [(edit, blur, edit.known) for edit, blur in self.edits]
        self.func = getattr(torch, self.op, None) or getattr(F, self.op)

    def __call__(self, input: Tensor) -> Any:
        """Make the edited call."""
        func = self.func
        for edit, blur, rule in self.calls:
            func = edit.around(func, rule, getattr(self.module, blur, None))
        around = [mode for mode in listeners() if isinstance(mode, _Rewriting)]
        for mode in reversed(around):
            func = mode.next_call(self.op, func)
        return call_paused(around, func, input, **self.rule.attributes(self.op, self.module))


Calls = dict[str, dict[int, list[tuple[CallEdit, str, Rule | None]]]]


def _by_call(edits: Iterable[tuple[CallEdit, int, str]]) -> Calls:
    """Group the edits by the name of the function and the number of the call."""
    calls: Calls = {}
    for edit, index, blur in edits:
        calls.setdefault(edit.op, {}).setdefault(index, []).append((edit, blur, edit.known))
    return calls


# Functions that call another: dynamo shows a mode the first, eager code shows it the second.
_CHOOSING = {f"max_pool{n}d": f"max_pool{n}d_with_indices" for n in (1, 2, 3)}
# Functions that dynamo does not show a mode; nor does it show calls of interpolate by torch.nn.functional.upsample.
_HIDDEN = {"hardswish", "pad", "pow"}


class _Rewriting(Listener):
    """Counts the calls of every edited function.

    An edited call counts once in the methods around this one; the calls that replace it do not count. The dynamo of the
    oldest supported torch traces ``__torch_function__``, hence plain dictionaries and integers.
    """

    def __init__(self, module: nn.Module, calls: Calls) -> None:
        super().__init__()
        self.module = module
        self.calls = calls
        self.counts = dict.fromkeys(calls, 0)

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        op = getattr(func, "__name__", "")
        if op in _CHOOSING and (kwargs.get("return_indices") or (len(args) > 6 and args[6])):
            op = _CHOOSING[op]
        if op not in self.calls or not (torch.compiler.is_dynamo_compiling() or self._is_called()):
            return func(*args, **kwargs)
        around = [mode for mode in listeners() if isinstance(mode, _Rewriting) and not mode.paused]
        edited = self.next_call(op, func)
        if edited is func:
            return func(*args, **kwargs)
        for mode in reversed(around):
            edited = mode.next_call(op, edited)
        return call_paused(around, edited, *args, **kwargs)

    def next_call(self, op: str, func: Function) -> Function:
        """Count a call of ``op``, and return ``func`` with the edits of that call applied."""
        index = self.counts.get(op)
        if index is None:
            return func
        self.counts[op] = index + 1
        for edit, blur, rule in self.calls[op].get(index, ()):
            func = edit.around(func, rule, getattr(self.module, blur, None))
        return func

    def misses(self, op: str) -> bool:
        """Whether fewer calls were counted than are edited."""
        return op in self.calls and any(index >= self.counts[op] for index in self.calls[op])

    def _is_called(self) -> bool:
        """Whether the model makes the call, not a compiled graph, whose calls were edited when it was traced.

        Behind a graph break, such a graph runs while this mode is active.
        """
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__", "").startswith(("torch.", __name__)):
            frame = frame.f_back
        if frame is None or not frame.f_code.co_filename.startswith("<eval_with_key>"):
            return True
        graph = frame.f_locals.get("self")
        return any(part is graph for part in self.module.modules())
