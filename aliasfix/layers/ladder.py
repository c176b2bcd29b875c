"""Where the samples of each lattice begin in one forward pass of a model with adaptive phase.

A lattice is an axis of the input and a total stride. The first layer that reaches it decides where its samples begin,
for every image. Layers that reach it later follow, so that branches that meet have the same phase.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AliasfixError
from ..tracing.nested import tensors
from .listeners import Listener, listeners


class Ladder(Listener):
    """The phases of one pass of ``root``; active while the pass runs.

    ``deciders`` are the ids of the layers that decided: if gradient checkpointing calls them again, they compute the
    same again. A ``TorchFunctionMode``, because torch keeps a stack of them for each thread, and compilers trace it.
    """

    def __init__(self, root: nn.Module | None = None) -> None:
        super().__init__()
        self.root = root
        self.offsets: dict[tuple[int, float], Tensor] = {}
        self.deciders: set[int] = set()
        self.passes: Passes | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))

    def end(self, out: Any) -> None:
        """Keep the phases for as long as the graph of the model's output lives."""
        for tensor in tensors(out):
            if self.passes is not None:
                self.passes.keep(self, tensor)

    def knows(self, source: int, total: float) -> bool:
        """Whether the lattice was reached."""
        return (source, total) in self.offsets

    def offset(self, source: int, total: float, x: Tensor) -> Tensor:
        """Return where the samples of a lattice begin, in samples of the input: one number for each image of ``x``.

        A lattice that no layer decided on begins where a coarser one does, or where the next finer one does.

        Raises:
            AliasfixError: ``x`` has another number of images than the pass.
        """
        if not self.knows(source, total):
            known = {at: offset for (axis, at), offset in self.offsets.items() if axis == source}
            coarser = [at for at in known if at > total and at % total == 0]
            finer = [at for at in known if at < total]
            if coarser:
                found = known[min(coarser)] % max(int(total), 1)
            elif finer:
                found = known[max(finer)]
            else:
                found = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
            self.offsets[source, total] = found
        found = self.offsets[source, total]
        if found.shape[0] != x.shape[0]:
            raise AliasfixError(
                f"adaptive phase: {x.shape[0]} images reach a lattice of total stride {total:g} in a pass of "
                f"{found.shape[0]}; convert the parts of the model that see other batches on their own"
            )
        return found.to(x.device)

    def candidates(self, source: int, fine: float, coarse: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the samples of the coarser lattice may begin, and which of these agree with all lattices.

        Returns:
            Two tensors of the shape (N, coarse / fine): the offsets, and whether they are allowed.
        """
        first, rate = self.offset(source, fine, x), round(coarse / fine)
        starts = first[:, None] + int(fine) * torch.arange(rate, device=x.device)
        allowed = torch.ones_like(starts, dtype=torch.bool)
        for (axis, total), offset in self.offsets.items():
            common = math.gcd(int(coarse), int(total)) if axis == source else 1
            if common > 1:
                allowed = allowed & ((starts - offset.to(x.device)[:, None]) % common == 0)
        return starts, allowed


class Passes:
    """Finds the ladder of the pass that a layer is called in; all layers of a model share one.

    Gradient checkpointing runs a part of the model again in the backward pass, outside of a pass of the whole. A hook
    on the graph of the model's output then says which pass it was.
    """

    def __init__(self) -> None:
        self.backward: dict[int, Ladder] = {}  # of the backward passes that run, by their number

    def __reduce__(self) -> tuple[type["Passes"], tuple[()]]:
        return Passes, ()

    def current(self) -> Ladder:
        """Return the ladder of the pass.

        Raises:
            AliasfixError: there is none.
        """
        for mode in reversed(listeners()):
            if isinstance(mode, Ladder):
                mode.passes = self
                return mode
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1 and self.backward:
            running = self.backward.get(torch._C._current_graph_task_id())
            if running is not None:
                return running
            if len(self.backward) == 1:  # a checkpoint within another runs a backward pass of its own
                return next(iter(self.backward.values()))
            raise AliasfixError(
                "nested gradient checkpoints are recomputed for several backward passes at once, and whose phases they "
                "take is not known: checkpoint with use_reentrant=False"
            )
        raise AliasfixError(
            "a part of a model with adaptive phase was called on its own, and the phases are decided in a pass of the "
            "whole: call the model, or convert the part alone"
        )

    def keep(self, ladder: Ladder, out: Tensor) -> None:
        """Keep the ladder for as long as the graph of ``out`` lives."""
        if out.grad_fn is not None:
            out.grad_fn.register_prehook(lambda gradients: self._begin(ladder))

    def _begin(self, ladder: Ladder) -> None:
        number = torch._C._current_graph_task_id()
        if number not in self.backward:
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(lambda: self.backward.pop(number, None))  # once the pass is over
        self.backward[number] = ladder


def begun(root: nn.Module) -> bool:
    """Whether a pass of ``root`` runs."""
    return any(isinstance(mode, Ladder) and mode.root is root for mode in listeners())


def whole(offsets: Sequence[Tensor], fine: Sequence[float]) -> list[Tensor]:
    """Return offsets in samples of the input as numbers of samples of a lattice.

    >>> whole([torch.tensor([4])], [2.0])
    [tensor([2])]
    """
    steps = zip(offsets, fine, strict=True)
    return [offset // int(step) if step >= 1 else offset * round(1 / step) for offset, step in steps]
