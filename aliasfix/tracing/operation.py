"""An operation of a recorded pass, and where in the model it was called."""

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn


@dataclass
class Frame:
    """One call of a module.

    ``inputs`` and ``output`` are the nodes of the positional arguments and of the result, None for what is not a
    single tensor. ``returned`` is False if the pass failed during the call.
    """

    path: str
    module: nn.Module
    call: int
    parent: "Frame | None"
    inputs: tuple[fx.Node | None, ...] = ()
    output: fx.Node | None = None
    returned: bool = False

    def within(self, other: "Frame") -> bool:
        """Whether this call is made during ``other``, or is ``other``."""
        frame: Frame | None = self
        while frame is not None:
            if frame is other:
                return True
            frame = frame.parent
        return False


@dataclass(frozen=True)
class Extent:
    """The position of an operation in one invocation of a module's method.

    ``index`` counts the operations of the same name since the invocation began.
    """

    path: str
    method: str
    index: int


@dataclass(eq=False)
class Operation:
    """An operation, as a node of the recorded graph. Only the recorder sets its attributes.

    Args:
        node: the node.
        name: the name of the function, or of the kind of node if it is no function.
        arguments: the arguments by name, if a rule knows the function's parameters; tensors are nodes.
        path: the module that makes the call.
        frame: the innermost module call.
        extents: the methods around it, innermost first.
        caller: the function that makes the call, if no method of a module is around it.
        variable: whether the result depends on the input.
        shape: the shape of the result, None if that is not a single tensor.
        bytes: the size of the result.
        multiply_adds: the multiply-adds of the call.
        makes: whether the result is a new tensor.
        moves: whether the call writes memory: a new tensor, or one in place.
    """

    node: fx.Node
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    frame: Frame | None = None
    extents: tuple[Extent, ...] = ()
    caller: str = ""
    variable: bool = False
    shape: tuple[int, ...] | None = None
    bytes: int = 0
    multiply_adds: int = 0
    makes: bool = False
    moves: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of the result, which must be a single tensor."""
        if self.shape is None:
            raise TypeError(f"{self.path or 'the model'}: {self.name} returns no single tensor")
        return self.shape


def of(node: fx.Node) -> Operation:
    """Return the operation of a node of a recorded graph."""
    operation: Operation = node.meta["operation"]
    return operation


# -- functions of nodes that the recorder adds ---------------------------------------------------------------


def held(x: Any) -> Any:
    """The argument of a function that changed it in place."""
    return x


def size(x: Any) -> Any:
    """The size of a tensor, read by Python."""
    return x.shape


def part(x: Any, index: int) -> Any:
    """One result of an operation that returns several."""
    return x[index]
