"""Choose where to apply an edit: on a module, or on one function call inside a method.

A module is preferred: its blur is visible in ``print(model)``, and its hook costs nothing elsewhere. It is right if the
value is an argument or the result of every call of the module. Otherwise (a shared activation, a function in
``forward``) the call is identified by its number in the innermost method in which that number is the same at every
invocation. Evaluation and training have numbers of their own, because a branch may run in one of them only.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from ..edits import BeginPass, BlurCall, BlurModule, DenseCall, Edit, InsertCall, ReplaceCall, Restride, SubstituteCall
from ..edits.inserted import can_host
from ..edits.methods import find_rewritten
from ..layers.resampling import Resampling
from ..layers.substitution import Substitution
from ..tracing.operation import Extent, Frame, of
from ..tracing.trace import Trace


@dataclass
class Scene:
    """A model and its traces.

    Args:
        model: the model, which stays as it is.
        trace: the trace of the mode that is planned.
        training: the trace of training if ``trace`` is of evaluation, else None.
        twins: the same calls in the trace of training.
    """

    model: nn.Module
    trace: Trace
    training: Trace | None = None
    twins: dict[fx.Node, fx.Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.training is not None:
            self.twins = twins(self.trace, self.training)

    def passes(self) -> tuple[Edit, ...]:
        """Return the edits that begin a pass with each method of the model that may call its layers."""
        own = {name for name in dir(type(self.model)) if name.startswith("forward") and not hasattr(nn.Module, name)}
        ran = {method for path, method in self.trace.invocations if not path}
        return tuple(BeginPass("", method, "", -1, -1) for method in sorted({"forward"} | own | ran))

    def dense(
        self, node: fx.Node, rule: str, stride: tuple[int, ...], was: tuple[int, ...], wrap: bool, by_attribute: bool
    ) -> Iterator[Edit]:
        """Yield the edits that evaluate an operation at another stride."""
        if by_attribute:
            yield Restride(of(node).path, stride, was)
        for at, numbers in self._calls(node):
            yield DenseCall(at.path, at.method, of(node).name, *numbers, rule, stride, wrap)

    def substituting(self, node: fx.Node, rule: str, layer: Substitution | None) -> Iterator[Edit]:
        """Yield the edits that put what a rule says, or a layer, in the place of an operation that does not sample."""
        for at, numbers in self._calls(node):
            if layer is None:
                yield SubstituteCall(at.path, at.method, of(node).name, *numbers, rule)
            elif can_host(self.model.get_submodule(at.path)):
                yield InsertCall(at.path, at.method, of(node).name, *numbers, rule, layer)

    def replacing(self, node: fx.Node, rule: str, instead: bool, blur: Resampling) -> Iterator[Edit]:
        """Yield the edits that replace an operation by a blur, or evaluate it together with its blur."""
        for at, numbers in self._calls(node):
            if can_host(self.model.get_submodule(at.path)):
                yield ReplaceCall(at.path, at.method, of(node).name, *numbers, rule, instead, blur)

    def after(self, value: fx.Node, blur: Resampling) -> Iterator[Edit]:
        """Yield the edits that blur a value for all its users."""
        samples = max(blur.stride) > 1
        users = [user for user in value.users if samples or of(user).name != "size"]
        inside: list[Frame | None] = [of(user).frame for user in users]
        frame: Frame | None = of(value).frame
        while frame is not None:
            escapes = not any(user is not None and user.within(frame) for user in inside)
            if frame.output is value and escapes and self._hosts(frame, blur) and self._returns(frame.path):
                yield BlurModule(frame.path, "after", 0, blur)
            frame = frame.parent
        frame = inside[0] if inside else None
        while frame is not None:
            if value in frame.inputs and self._hosts(frame, blur):
                arg = frame.inputs.index(value)
                if all(user is not None and user.within(frame) for user in inside) and self._takes(frame.path, arg):
                    yield BlurModule(frame.path, "before", arg, blur)
            frame = frame.parent
        yield from self._blur_calls(value, "after", blur)

    def before(self, node: fx.Node, blur: Resampling, through_pad: bool) -> Iterator[Edit]:
        """Yield the edits that blur the first argument of an operation, for this operation alone."""
        frame: Frame | None = of(node).frame
        if frame is not None and frame.inputs and self._hosts(frame, blur):
            step = node.all_input_nodes[0]
            while through_pad and step is not frame.inputs[0] and of(step).name == "pad" and len(step.users) == 1:
                step = step.all_input_nodes[0]
            users = [user for user in step.users if max(blur.stride) > 1 or of(user).name != "size"]
            inside = [user for user in users if (own := of(user).frame) is not None and own.within(frame)]
            if step is frame.inputs[0] and len(inside) == 1 and self._takes(frame.path, 0):
                yield BlurModule(frame.path, "before", 0, blur)
        yield from self._blur_calls(node, "before", blur)

    def _hosts(self, frame: Frame, blur: Resampling) -> bool:
        """Whether a module can hold the blur and call it by a hook. Hooks of the model itself run outside of a pass."""
        return can_host(frame.module) and bool(frame.path or not blur.phase)

    def _returns(self, path: str) -> bool:
        """Whether the module returns a single tensor in training, too."""
        return self.training is None or all(f.output is not None for f in self.training.by_path(path) if f.returned)

    def _takes(self, path: str, arg: int) -> bool:
        """Whether that argument of the module is a tensor in training, too."""
        if self.training is None:
            return True
        return all(arg < len(f.inputs) and f.inputs[arg] is not None for f in self.training.by_path(path))

    def _blur_calls(self, node: fx.Node, where: str, blur: Resampling) -> Iterator[Edit]:
        for at, numbers in self._calls(node):
            if can_host(self.model.get_submodule(at.path)):
                yield BlurCall(at.path, at.method, of(node).name, *numbers, where, blur)

    def _calls(self, node: fx.Node) -> Iterator[tuple[Extent, tuple[int, int]]]:
        """Yield the methods around a call, with its number in evaluation and in training; -1 if it does not run."""
        twin = self.twins.get(node)
        known = {(at.path, at.method): at.index for at in of(twin).extents} if twin is not None else {}
        for at in of(node).extents:
            module = self.model.get_submodule(at.path)
            # rewritten by an earlier conversion, or a module whose copies lose rewritten methods
            if find_rewritten(module.__dict__.get(at.method)) is not None or isinstance(module, fx.GraphModule):
                continue
            if self.trace.training:
                yield at, (-1, at.index)
            elif self.training is None or (twin is None and self.training.failure is not None):
                yield at, (at.index, at.index)
            else:
                yield at, (at.index, known.get((at.path, at.method), -1))


def why_nowhere(*nodes: fx.Node) -> str:
    """Return why an operation and its tail cannot be edited, as a sentence."""
    for node in nodes:
        if not of(node).extents:
            by = f" by {of(node).caller}" if of(node).caller else ""
            return f"{of(node).name} is called{by}, and not within a method that can be rewritten."
    return "No module around it can hold a blur: each is an FX graph, or runs all of its children."


def twins(evaluation: Trace, training: Trace) -> dict[fx.Node, fx.Node]:
    """Match the calls of evaluation with those of training, in order, by path, function, shape and arguments.

    The first axis may differ: a detector trains on another number of objects than it finds.
    """
    waiting: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in training.graph.nodes:
        if node.op == "call_function":
            waiting[_signature(node)].append(node)
    found = {}
    for node in evaluation.graph.nodes:
        if node.op == "call_function" and waiting[_signature(node)]:
            found[node] = waiting[_signature(node)].pop(0)
    return found


def _signature(node: fx.Node) -> tuple[Any, ...]:
    numbers = [a for a in (*node.args, *node.kwargs.values()) if type(a) in (int, str)]
    numbers += [str(a) for a in (*node.args, *node.kwargs.values()) if isinstance(a, tuple | list)]
    return of(node).path, of(node).name, (of(node).shape or ())[1:], *numbers
