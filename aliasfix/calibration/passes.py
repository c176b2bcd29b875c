"""A pass over the images: the original shows what its layers do, then the converted network is corrected in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.running import watching


class Correction(Protocol):
    """What corrects one layer of the converted network from what the original's layer does."""

    path: str

    def show(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """See one batch at the original's layer: what goes in, and what comes out."""

    def correct(self, module: nn.Module, x: Tensor) -> None:
        """See the same batch before it enters the converted network's layer, and change the layer's weights."""


def correct(
    original: nn.Module, model: nn.Module, corrections: Sequence[Correction], batches: Iterable[Tensor]
) -> None:
    """Correct layers of a converted network in the order in which they run.

    A layer is corrected just before it runs, so that it sees what the corrected layers before it make of the
    batch. Its correction pools what it saw of all batches so far: with one batch every layer is corrected with the
    final layers before it; with several no more than one is held at a time.

    Args:
        original: in eval mode, left as it is.
        model: in eval mode; the weights of its corrected layers change.
        corrections: in the order in which those of one layer act.
        batches: (B, C, H, W), on the device and in the type of the networks.

    Raises:
        AliasfixError: a layer's values are not finite; names it.
    """
    with ExitStack() as stack:
        for correction in corrections:
            shown = original.get_submodule(correction.path).register_forward_hook(partial(_show, correction))
            corrected = model.get_submodule(correction.path).register_forward_pre_hook(partial(_correct, correction))
            stack.callback(shown.remove)
            stack.callback(corrected.remove)
        stack.enter_context(torch.no_grad())
        for batch in batches:
            original(batch)
            model(batch)


def once(model: nn.Module, batch: Tensor, kinds: tuple[type[nn.Module], ...], until: Sequence[str] = ()) -> list[str]:
    """The layers of some kinds that run once in a forward pass, on one tensor, in the order in which they run.

    Args:
        model: the network.
        batch: what it runs on.
        kinds: classes of layers.
        until: modules of which the last to run ends it: layers behind, whose inputs may depend on what was found, do
            not count. Empty: all count.
    """
    calls: Counter[str] = Counter()
    before = dict.fromkeys(until, 0)  # how many layers had run when it did

    def count(path: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, kinds):
            calls[path] += 1 if len(args) == 1 and isinstance(output, Tensor) else 2
        if path in before:
            before[path] = len(calls)

    layers = [(path, one) for path, one in model.named_modules() if isinstance(one, kinds) or path in before]
    with watching(layers, count), torch.no_grad():
        model(batch)
    ended = list(calls.items())[: max(before.values())] if until else calls.items()
    return [path for path, times in ended if times == 1]


def _show(correction: Correction, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    with _named(correction):
        correction.show(module, args[0], output)


def _correct(correction: Correction, module: nn.Module, args: tuple[Any, ...]) -> None:
    with _named(correction):
        correction.correct(module, args[0])


@contextmanager
def _named(correction: Correction) -> Iterator[None]:
    try:
        yield
    except AliasfixError as error:
        raise AliasfixError(f"{correction.path}: {error}") from None
