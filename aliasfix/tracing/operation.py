"""One operation of a recorded pass, and where in the model it was called."""

from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn


@dataclass
class Frame:
    """One call of a module.

    ``inputs`` and ``output`` are the nodes of the positional arguments and of the result, None where
    that is no single tensor; ``returned`` is False where the pass failed in it.
    """

    path: str
    module: nn.Module
    call: int
    parent: "Frame | None"
    inputs: tuple[fx.Node | None, ...] = ()
    output: fx.Node | None = None
    returned: bool = False

    def within(self, other: "Frame") -> bool:
        """Whether this call happens during ``other``, or is ``other``."""
        frame: Frame | None = self
        while frame is not None:
            if frame is other:
                return True
            frame = frame.parent
        return False


@dataclass(frozen=True)
class Extent:
    """The position of an operation within one invocation of a method of a module.

    ``index`` counts the operations of the same name since that invocation began.
    """

    path: str
    method: str
    index: int


@dataclass(eq=False)
class Operation:
    """What a node of the recorded graph stands for. Only the recorder sets its attributes.

    Args:
        node: the node.
        name: the function's name; that of the kind of node where it is no function.
        arguments: by name, where a rule knows the function's parameters; tensors are nodes.
        path: the module in which it was called.
        frame: the innermost module call.
        extents: the methods around it, innermost first.
        caller: the function that called it, if no method of a module is around it.
        variable: whether it depends on the input.
        shape: of its result; None where that is no single tensor.
        bytes: of its result.
        multiply_adds: that it makes.
        makes: whether its result is a new map.
        moves: whether it writes to memory: a new map, or one in place.
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
        """The shape of a result that is a single tensor."""
        if self.shape is None:
            raise TypeError(f"{self.path or 'the model'}: {self.name} returns no single tensor")
        return self.shape


def of(node: fx.Node) -> Operation:
    """The operation that a node of a recorded graph stands for."""
    operation: Operation = node.meta["operation"]
    return operation
