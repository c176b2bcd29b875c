"""How far outputs, feature maps and layers are from the original's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aliasfix.measure.running import running
from aliasfix.running import watching
from aliasfix.tracing.nested import tensors


def between(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The summed squares of the difference, and of what is wanted around each channel's mean."""
    return (found - wanted).square().sum(), _spread(wanted)


def psnr(found: Tensor, wanted: Tensor) -> float:
    """In dB, its peak the range of what is wanted.

    >>> round(psnr(torch.tensor([0.0, 0.9]), torch.tensor([0.0, 1.0])), 2)
    23.01
    """
    error = (found - wanted).square().mean()
    return (10 * torch.log10((wanted.max() - wanted.min()).square() / error)).item()


def of_features(original: nn.Module, model: nn.Module, paths: Sequence[str], batches: Sequence[Tensor]) -> float:
    """How far the maps that some modules return are from the original's: squared, as a share of their variance."""
    sums = [torch.zeros(()), torch.zeros(())]
    for batch in batches:
        found, wanted = (_returned(network, paths, batch) for network in (model, original))
        for pair in zip(found, wanted, strict=True):
            sums = [total + part for total, part in zip(sums, between(*pair), strict=True)]
    return share(sums)


def _returned(model: nn.Module, paths: Sequence[str], batch: Tensor) -> list[Tensor]:
    """The maps that some modules return for a batch, in the order in which they end."""
    found: list[Tensor] = []

    def keep(path: str, module: nn.Module, args: Any, output: Any) -> None:
        found.extend(one.float().cpu() for one in tensors(output) if one.is_floating_point() and one.ndim > 2)

    with watching([(path, model.get_submodule(path)) for path in paths], keep), running(model, None, "features") as run:
        run.forward(run.place(batch))
    return found


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
