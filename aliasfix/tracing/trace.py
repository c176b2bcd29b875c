"""What a recorded pass consists of."""

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor, fx

from .operation import Frame


@dataclass
class Trace:
    """What a pass recorded.

    Every node of ``graph`` stands for an `Operation`. Where the pass failed, ``failure`` holds the model's own error,
    and the graph what ran before it.
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
