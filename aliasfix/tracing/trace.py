"""The record of one forward pass."""

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor, fx

from .operation import Frame


@dataclass
class Trace:
    """The record of one forward pass.

    Every node of ``graph`` stands for an `Operation`. If the pass failed, ``failure`` holds the model's error, and the
    graph holds the operations before it.
    """

    graph: fx.Graph
    training: bool
    backing: str
    frames: list[Frame] = field(default_factory=list)
    invocations: Counter[tuple[str, str]] = field(default_factory=Counter)
    constants: dict[fx.Node, Tensor] = field(default_factory=dict)
    failure: str | None = None

    def by_path(self, path: str) -> list[Frame]:
        """Return the calls of the module at ``path``."""
        return [frame for frame in self.frames if frame.path == path]

    def calls(self, path: str) -> int:
        """Return how often the module at ``path`` was called."""
        return len(self.by_path(path))
