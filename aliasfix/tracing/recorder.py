"""Record one forward pass of a model as a graph of functional operations.

`torch.fx.symbolic_trace` fails on control flow, and records a module where this records an operation. Here the model
runs as it is, on meta tensors, under a ``TorchFunctionMode``. Each operation becomes a node of a ``torch.fx.Graph``,
whether a module or a ``forward`` calls it. Parameters are replaced by meta tensors in the arguments of an operation,
never on the model, so the model does not change.

If a model asks for values (``.item()``, ``nonzero``), the pass is repeated on fake tensors, then on real ones. If
random values serve as well, expensive layers are not computed and return random values.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from ..planning.tail import acts_by_position
from . import shapes
from .counter import MultiplyAdds
from .invocations import Invocations
from .nested import map_tensors, tensors
from .operation import Frame, Operation, held, of, part, size
from .trace import Trace
from .undisturbed import uncollected, undisturbed

BACKINGS = ("meta", "fake", "real")
_SHAPE: Any = torch.Tensor.shape  # a descriptor, though torch's stubs say a value
_DRAWN = 65521  # a prime, so that no two maps or channels are alike


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    training: bool = False,
    backings: Sequence[str] = BACKINGS,
    targets: tuple[Any, ...] = (),
    parameters: Mapping[str, Sequence[str]] | None = None,
) -> Trace:
    """Run ``model(*args, *targets, **kwargs)`` once and record it; compute nothing where that is possible.

    The model, its buffers, modes and hooks, and the random number generators stay as they are, also if the pass fails.

    Args:
        model: the model.
        args, kwargs: its input.
        training: the mode of the pass.
        backings: the kinds of tensors to try, in order: ``meta``, ``fake``, ``real`` or ``drawn``. With ``drawn``,
            tensors are real, but the layers in `shapes` return random values.
        targets: further positional arguments, recorded as constants.
        parameters: the parameter names of functions; their arguments are bound by name.

    Returns:
        The trace. If every backing fails, it is the longest one, and ``failure`` holds the last error.

    >>> trace = record(nn.Conv2d(3, 8, 3, stride=2), (torch.ones(1, 3, 9, 9),), {})
    >>> [(of(node).name, of(node).shape) for node in trace.graph.nodes if node.op == "call_function"]
    [('conv2d', (1, 8, 4, 4))]
    """
    recorded = []
    for backing in backings:
        recorder = _Recorder(model, backing, training, parameters or {})
        try:
            given = recorder.lift_inputs(args), recorder.lift_inputs(kwargs)
            with uncollected(), undisturbed(model, training), recorder.running():
                recorder.finish(model(*given[0], *targets, **given[1]))
            return recorder.trace
        except Exception as error:  # the model's own
            recorder.trace.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            recorded.append(recorder.trace)
    longest = max(recorded, key=lambda trace: len(trace.graph.nodes))
    longest.failure = recorded[-1].failure
    return longest


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, backing: str, training: bool, parameters: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.parameters = parameters
        self.model = model
        self.backing = backing
        self.trace = Trace(fx.Graph(), training, backing)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True) if backing == "fake" else None
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.names = {
            id(tensor): name
            for group in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
            for name, tensor in group
        }
        self.top: Frame | None = None
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Any] = []  # ids stay unique as long as their objects live
        self.twins: dict[int, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.counter = MultiplyAdds()
        self.invocations = Invocations(self.trace.invocations)
        self.drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(0)) if backing == "drawn" else None

    # -- running ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Record every module call and every function call."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            for module in self.model.modules():
                stack.callback(module.register_forward_pre_hook(self._enter, prepend=True).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            stack.enter_context(self.invocations.counted(self.model))
            if self.fake is not None:
                stack.enter_context(self.fake)
            stack.enter_context(self)
            if self.backing == "meta":
                stack.enter_context(torch.device("meta"))
            yield

    def finish(self, result: Any) -> None:
        """Record what the model returns, as a use of it."""
        returned = [self.nodes[id(t)] for t in tensors(result) if id(t) in self.nodes]
        node = self.trace.graph.output(tuple(dict.fromkeys(returned)))
        node.meta["operation"] = Operation(node, "output", variable=True)

    def _forget(self) -> None:
        for node in reversed(self.trace.graph.nodes):
            if of(node).name == "held" and not node.users:
                self.trace.graph.erase_node(node)
        self.alive.clear()
        self.nodes.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        path = self.paths.get(id(module), "")
        self.top = Frame(path, module, self.calls[path], self.top, tuple(self.nodes.get(id(arg)) for arg in args))
        self.calls[path] += 1
        self.trace.frames.append(self.top)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        assert self.top is not None
        self.top.returned = True
        self.top.output = self.nodes.get(id(output)) if isinstance(output, Tensor) else None
        self.top = self.top.parent

    # -- tensors ---------------------------------------------------------------------------------------------

    def lift_inputs(self, values: Any) -> Any:
        """Replace every tensor of the input by the twin of a placeholder."""
        return map_tensors(values, self._placeholder)

    def _placeholder(self, tensor: Tensor) -> Tensor:
        twin = self._twin(tensor)
        self._bind(twin, self.trace.graph.placeholder(f"input_{len(self.nodes)}"), variable=True)
        return twin

    def _twin(self, tensor: Tensor) -> Tensor:
        if self.fake is not None:
            return self.fake.from_tensor(tensor.detach())
        if self.backing == "meta":
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return tensor.detach().clone()

    def _lift(self, tensor: Tensor) -> Tensor:
        """Return a tensor that the pass made; replace a parameter, buffer or constant by its twin."""
        if id(tensor) in self.nodes:
            return tensor
        if id(tensor) not in self.twins:
            name = self.names.get(id(tensor), f"constant_{len(self.twins)}")
            node = self.trace.graph.create_node("get_attr", name)
            foreign = tensor.device.type == "meta" if self.backing == "meta" else self._is_fake(tensor)
            twin = tensor if foreign else self._twin(tensor)
            self._bind(twin, node, variable=False)
            if not foreign:
                self.trace.constants[node] = tensor
                self.alive.append(tensor)
                self.twins[id(tensor)] = twin
            return twin
        return self.twins[id(tensor)]

    def _is_fake(self, tensor: Tensor) -> bool:
        return self.fake is not None and type(tensor).__name__ == "FakeTensor"

    def _bind(self, tensor: Tensor, node: fx.Node, variable: bool) -> None:
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)
        operation = node.meta.setdefault("operation", Operation(node, node.op, frame=self.top))
        operation.shape = tuple(tensor.shape)
        operation.bytes = tensor.numel() * tensor.element_size()
        operation.variable = variable

    # -- functions -------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = map_tensors(args, self._lift), map_tensors(kwargs or {}, self._lift)
        given = {id(t): (t, t._version) for t in tensors((args, kwargs))}
        counted = self.counter.total
        inferred = self._inferred(func, args, kwargs)
        out = self._run(func, args, kwargs) if inferred is None else inferred.result
        results = list(tensors(out))
        mutated = [t for t, version in given.values() if t._version != version]
        if not results and not mutated:
            if func == _SHAPE.__get__ or getattr(func, "__name__", "") == "size":
                self._note_size(args[0])
            return out
        node = self._node(func, args, kwargs)
        makes = bool(results) and {_storage(t) for t in results}.isdisjoint(_storage(t) for t, _ in given.values())
        adds = self.counter.total - counted if inferred is None else inferred.multiply_adds
        operation = of(node)
        operation.multiply_adds, operation.makes, operation.moves = adds, makes, makes or bool(mutated)
        if isinstance(out, Tensor):
            return self._result(out, node, given, mutated)
        self._bind_parts(out, node)
        for tensor in mutated:
            self._bind(tensor, node, operation.variable)
        return out

    def _inferred(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> shapes.Inferred | None:
        """Return the result of a function that need not run, else None."""
        if self.backing == "meta":
            return shapes.infer(func, args, kwargs)
        if self.drawn is None:
            return None
        inferred = shapes.infer(func, args, kwargs)
        if inferred is None:
            return shapes.infer_large(func, args, kwargs)
        for result in tensors(inferred.result):
            if result.numel() < shapes.LARGE:
                shapes.fill(result, self.drawn)
        return inferred

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if acts_by_position(getattr(func, "__name__", "")):
            return func(*args, **kwargs)  # makes no multiply-adds: counting would double the time
        with self.counter:
            return func(*args, **kwargs)

    def _node(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        op = getattr(func, "__name__", str(func))
        node = self.trace.graph.call_function(func, map_tensors(args, self._known), map_tensors(kwargs, self._known))
        path = self.top.path if self.top is not None else ""
        node.meta["operation"] = Operation(
            node,
            op,
            {**dict(zip(self.parameters.get(op, ()), node.args, strict=False)), **node.kwargs},
            path,
            self.top,
            self.invocations.extents(op),
            self.invocations.caller(),
            any(of(parent).variable for parent in node.all_input_nodes),
        )
        return node

    def _note_size(self, tensor: Tensor) -> None:
        """Record that a size is read: a denser map has another one."""
        read = self.nodes[id(tensor)]
        if of(read).variable and not any(of(user).name == "size" for user in read.users):
            node = self.trace.graph.call_function(size, (read,))
            node.meta["operation"] = Operation(node, "size", frame=self.top, variable=True)

    def _known(self, tensor: Tensor) -> Any:
        return self.nodes[id(tensor)]

    def _result(self, out: Tensor, node: fx.Node, given: dict[int, Any], mutated: list[Tensor]) -> Tensor:
        variable = of(node).variable
        if id(out) not in given:
            self._bind(out, node, variable)
            return out
        # The function returned its argument. The result gets an alias, so that later uses of the argument and of the
        # result differ: a layer that is inserted after the function changes only the result.
        alias = out.detach()
        self._bind(alias, node, variable)
        if mutated:
            changed = self.trace.graph.call_function(held, (node,))
            changed.meta["operation"] = replace(of(node), node=changed, name="held", extents=(), moves=False)
            self._bind(out, changed, variable)
        return alias

    def _bind_parts(self, out: Any, node: fx.Node) -> None:
        if isinstance(out, tuple | list):
            for index, value in enumerate(out):
                if isinstance(value, Tensor):
                    item = self.trace.graph.call_function(part, (node, index))
                    item.meta["operation"] = replace(of(node), node=item, name="part", extents=(), multiply_adds=0)
                    self._bind(value, item, of(node).variable)
                else:
                    self._bind_parts(value, node)


def _storage(tensor: Tensor) -> int:
    """Return what identifies the memory of a tensor and of its views."""
    return int(tensor.untyped_storage()._cdata)
