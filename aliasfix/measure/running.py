"""A model while it is measured: in eval mode, without gradients, its output checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.families.layout import shifted_axes
from aliasfix.families.reading import Answer, Output, read
from aliasfix.running import evaluating
from aliasfix.text.progress import Work

__all__ = ["Model", "Output", "Runner", "running"]

Model: TypeAlias = Callable[[Tensor], Any]


class Runner:
    """Calls the model on batches and returns checked tensors."""

    def __init__(self, model: Model, output: Output, work: Work) -> None:
        self._model, self._output, self._work = model, output, work
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        self._device = tensors[0].device if tensors else None
        self._dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)

    def place(self, tensor: Tensor) -> Tensor:
        """The tensor on the model's device."""
        return tensor if self._device is None else tensor.to(self._device)

    def axes(self, images: Tensor) -> int:
        """How many of the last axes of a batch are shifted: 2, or 1 of signals."""
        return min(2, shifted_axes(self._model, images.ndim - 1))

    def sides(self, images: Tensor) -> tuple[int, int]:
        """Height and width of a batch; of signals, whose height is 1, the length."""
        return 1 if self.axes(images) == 1 else images.shape[-2], images.shape[-1]

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes), in float32 or wider."""
        logits = self(images)
        if logits.ndim != 2:
            raise AliasfixError(
                f"the model returned {tuple(logits.shape)} where this metric needs logits (batch, classes): "
                f"pass output= a function that makes them, or use stability or label_agreement for maps"
            )
        return logits

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, h, w), of signals (B, C, t), of volumes (B, C, d, h, w), in float32 or wider."""
        maps = self(images)
        if maps.ndim < 3:
            raise AliasfixError(f"the model returned {tuple(maps.shape)} where this metric needs maps (batch, C, h, w)")
        return maps

    def __call__(self, images: Tensor) -> Tensor:
        """The model's output where it is one tensor, whatever its shape."""
        return self.answer(images).tensor

    def answer(self, images: Tensor, *, values: bool = True) -> Answer:
        """The model's output, of whatever kind; without values, NaN and the like are no reason to raise."""
        return read(self._model, self.forward(images), images, self._output, values=values)

    def forward(self, images: Tensor) -> Any:
        """What the model returns, as it is, for images on its device."""
        result = self._model(images.to(self._dtype or images.dtype))
        self._work.advance(len(images))
        return result


@contextmanager
def running(model: Model, output: Output, what: str) -> Iterator[Runner]:
    """Measure a model, or another callable: a model runs in eval mode, and nothing keeps gradients."""
    still = evaluating(model) if isinstance(model, nn.Module) else torch.no_grad()
    with still, Work(what, unit="input") as work:
        yield Runner(model, output, work)
