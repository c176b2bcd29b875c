"""What a network costs to run: time and memory of one forward pass."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from aliasfix.images.inputs import batches
from aliasfix.measure.running import running
from aliasfix.running import DispatchMode


def latencies(models: Sequence[nn.Module], images: Tensor, repeats: int = 7) -> list[float]:
    """Seconds that a forward pass of each model takes for one image.

    The fastest of several, which other programs delay least; in turns, so that what they take falls on all alike.

    Args:
        models: timed in eval mode.
        images: (B, C, H, W).
        repeats: how often each is timed, after one that does not count.
    """
    best = [float("inf")] * len(models)
    for turn in range(repeats + 1):
        for number, model in enumerate(models):
            with running(model, None, "latency") as run:
                batch = run.place(images)
                _wait(batch)
                start = time.perf_counter()
                run.forward(batch)
                _wait(batch)
                if turn:
                    best[number] = min(best[number], (time.perf_counter() - start) / len(images))
    return best


def memory(model: nn.Module, images: Tensor) -> float:
    """Peak bytes of the tensors alive within a forward pass, for one image, beside weights and input.

    Counted as ATen makes them, so the figure depends on neither machine nor allocator; what an operation needs
    inside itself is not in it.

    >>> memory(nn.ReLU(), torch.ones(2, 1, 4, 4))
    64.0
    """
    with running(model, None, "memory") as run:
        (batch,) = (found for found, _ in batches(images[:, None], len(images), labels=False))
        batch = run.place(batch)
        with _Peak([batch, *model.parameters(), *model.buffers()]) as peak:
            run.forward(batch)
    return float(peak.most / len(images))


class _Peak(DispatchMode):
    """Counts the bytes of living tensors, each storage once."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.alive: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        if where in self.known or size == 0:
            return
        if where not in self.alive:
            self.alive[where] = 0
            self.now += size
            self.most = max(self.most, self.now)
        self.alive[where] += 1
        weakref.finalize(tensor, self._gone, where, size)

    def _gone(self, where: int, size: int) -> None:
        self.alive[where] -= 1
        if not self.alive[where]:
            del self.alive[where]
            self.now -= size


def _wait(like: Tensor) -> None:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
