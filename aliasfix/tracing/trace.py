"""What a recorded pass consists of."""

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor, fx, nn


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


@dataclass
class Trace:
    """What a pass recorded.

    Every node of ``graph`` has in its ``meta``: ``frame`` (the innermost module call), ``path``, ``op``,
    ``shape`` (of the output, None if no tensor), ``extents`` (innermost method first), ``variable`` (whether it depends
    on the input). Where the pass failed, ``failure`` holds the model's own error, and the graph what ran before it.
    """

    graph: fx.Graph
    training: bool
    backing: str
    frames: list[Frame] = field(default_factory=list)
    invocations: Counter[tuple[str, str]] = field(default_factory=Counter)
    constants: dict[fx.Node, Tensor] = field(default_factory=dict)
    failure: str | None = None

    def by_path(self, path: str) -> list[Frame]:
        """The calls of the module at ``path``."""
        return [frame for frame in self.frames if frame.path == path]

    def calls(self, path: str) -> int:
        """How often the module at ``path`` was called."""
        return len(self.by_path(path))
