"""How close a network is to its original on the images held out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aliasfix.calibration.result import Scores
from aliasfix.measure.running import Output, running


class Judge:
    """The original's outputs on two views of each image held out, and what to compare with them.

    Args:
        original: the network to be close to.
        views: two views of every image, each a list of batches.
        output: where the tensor is in what the networks return.
    """

    def __init__(self, original: nn.Module, views: Sequence[Sequence[Tensor]], output: Output) -> None:
        self._views, self._output = views, output
        self._original = self._outputs(original)
        self.original = self._scores(self._original)

    def __call__(self, model: nn.Module) -> Scores:
        """The scores of a network."""
        return self._scores(self._outputs(model))

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        with running(model, self._output, "calibration") as run:
            return [torch.cat([run(run.place(batch)).cpu() for batch in view]) for view in self._views]

    def _scores(self, outputs: Sequence[Tensor]) -> Scores:
        wanted, found = torch.cat(self._original), torch.cat(list(outputs))
        error = share(((found - wanted).square().sum(), _spread(wanted)))
        if wanted.ndim != 2 or wanted.shape[1] < 2:
            return Scores(None, error, None)
        classes = [view.argmax(1) for view in outputs]
        agreement = (found.argmax(1) == wanted.argmax(1)).float().mean().item()
        return Scores(agreement, error, (classes[0] == classes[1]).float().mean().item())


def errors(original: nn.Module, model: nn.Module, paths: Sequence[str], batches: Sequence[Tensor]) -> dict[str, float]:
    """How far each layer's output is from the original's: squared, as a share of its variance.

    Up to each channel's mean, which a bias or the normalisation behind the layer takes up. A layer that runs densely in
    the converted network is compared where the original samples.
    """
    sums = {path: [torch.zeros(()), torch.zeros(())] for path in paths}
    kept: dict[str, Tensor] = {}

    def keep(path: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept[path] = output

    def compare(path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        wanted, found = kept.pop(path), type(module).forward(module, *args)
        every = [slice(None, None, -(-n // m)) for n, m in zip(found.shape[2:], wanted.shape[2:], strict=True)]
        sums[path][0] = sums[path][0] + _spread(found[(slice(None), slice(None), *every)] - wanted)
        sums[path][1] = sums[path][1] + _spread(wanted)

    with ExitStack() as stack:
        for path in paths:
            stack.callback(original.get_submodule(path).register_forward_hook(partial(keep, path)).remove)
            stack.callback(model.get_submodule(path).register_forward_pre_hook(partial(compare, path)).remove)
        for batch in batches:
            for network in (original, model):
                with running(network, None, "calibration") as run:
                    run.forward(run.place(batch))
    return {path: share(pair) for path, pair in sums.items()}


def share(pair: Sequence[Tensor]) -> float:
    """One sum over another; 0 where both are 0."""
    error, of = pair
    return (error / of.clamp_min(1e-12)).item()


def _spread(x: Tensor) -> Tensor:
    """The summed squares around each channel's mean."""
    flat = x.movedim(1, 0).flatten(1)
    return (flat - flat.mean(1, keepdim=True)).square().sum()
