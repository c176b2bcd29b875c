"""A model while it is measured: in eval mode, without gradients, its output checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.running import evaluating
from aliasfix.text.progress import Work

Model: TypeAlias = Callable[[Tensor], Any]
Output: TypeAlias = Callable[[Any], Tensor] | str | int | None
"""Where the tensor is in what the model returns: a key or attribute, an index, a function; None: it is it."""


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
        """(B, C, h, w), in float32 or wider."""
        maps = self(images)
        if maps.ndim != 4:
            raise AliasfixError(f"the model returned {tuple(maps.shape)} where this metric needs maps (batch, C, h, w)")
        return maps

    def __call__(self, images: Tensor) -> Tensor:
        """The model's output, whatever its shape."""
        result = _tensor(self.forward(images), self._output)
        if result.shape[:1] != images.shape[:1]:
            raise AliasfixError(f"the model returned {tuple(result.shape)} for a batch of {len(images)} images")
        if result.is_complex():
            raise AliasfixError("the model returned complex numbers: pass output= a function that makes them real")
        if result.isnan().any():
            bad = int(result.isnan().flatten(1).any(1).sum())
            raise AliasfixError(f"the model returned NaN for {bad} of {len(images)} inputs")
        return result.to(torch.promote_types(result.dtype, torch.float32))

    def shape(self, images: Tensor, output: Output) -> torch.Size:
        """The shape of the model's output, whatever its values."""
        result = self.forward(images)
        try:
            return _tensor(result, output).shape
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise AliasfixError(
                f"output={output!r} is not in the {type(result).__name__} that the model returned"
            ) from error

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


def _tensor(result: Any, output: Output) -> Tensor:
    if callable(output):
        result = output(result)
    elif isinstance(output, int):
        result = result[output]
    elif output is not None:
        result = result[output] if isinstance(result, Mapping) else getattr(result, output)
    if isinstance(result, Tensor):
        return result
    if isinstance(result, Mapping):
        first = next((key for key, value in result.items() if isinstance(value, Tensor)), "key")
        hint = f"a dict with {', '.join(map(repr, result))}: pass output={first!r}, or another key"
    elif isinstance(result, tuple | list) and any(isinstance(one, Tensor) for one in result):
        hint = f"a {type(result).__name__} of {len(result)}: pass output=0, or another index"
    else:
        hint = f"a {type(result).__name__}: pass output= a function that makes one tensor (batch, ...) of it"
    raise AliasfixError(f"the model returned {hint}")
