"""The input that a model is traced with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AliasfixError
from ..families import family as families
from ..families.family import Family, Inputs
from ..running import where
from .recorder import BACKINGS, record
from .structure import structure
from .trace import Trace

_GUESSED_SIZES = (224, 256, 299, 384, 512, 64, 32)
Traced = tuple[list[Trace], list[str], Inputs]


def traces(
    model: nn.Module, example_input: Any = None, parameters: Mapping[str, Sequence[str]] | None = None
) -> Traced:
    """Record a model in evaluation and in training mode.

    Args:
        model: the model, which stays as it is.
        example_input: a tensor, a tuple of positional arguments, or a dict of keyword arguments. None takes the size
            in the model's own configuration, else guesses one.
        parameters: the parameter names of functions, see `Operation`.

    Returns:
        The two traces (that of training may be incomplete), notes for the user, and the input.

    Raises:
        AliasfixError: the model does not run on the input.
    """
    tried = []
    model = structure(model)
    family = families.of(model)
    candidates = _candidates(model, example_input)
    for origin, given in candidates:
        evaluation = record(model, *given, backings=_backings(family, example_input), parameters=parameters)
        if evaluation.failure is not None:
            tried.append(f"{origin}: {evaluation.failure}")
            continue
        if family is not None and family.targets is not None:
            with family.steady(model):
                targets = family.targets(model, given)
                training = record(
                    model, *given, training=True, backings=["drawn"], targets=targets, parameters=parameters
                )
            return _traced(evaluation, training, given)
        training = record(model, *given, training=True, backings=[evaluation.backing], parameters=parameters)
        first = _traced(evaluation, training, given)
        if training.failure is None:
            return first
        return _larger(model, (given for _, given in candidates), training, parameters) or first
    hint = "" if example_input is not None else "; give example_input= (a tensor, a tuple of arguments or a dict)"
    raise AliasfixError(f"the model does not run on {tried[0]}{hint}")


def _backings(family: Family | None, example_input: Any) -> Sequence[str]:
    """Return the backings to try. A model that searches images needs values; those of a guessed image may be random."""
    if family is None or not family.finds:
        return BACKINGS
    return ("real",) if example_input is not None else ("drawn", "real")


def _larger(
    model: nn.Module, guesses: Iterator[Inputs], failed: Trace, parameters: Mapping[str, Sequence[str]] | None
) -> Traced | None:
    """Try the other guessed sizes until one runs in both modes: Inception's auxiliary head needs a larger image.

    Training mode, which failed on the first guess, is tried before evaluation. Passes on real tensors are slow: there
    the search ends if training fails twice with the same error, which does not depend on the size.
    """
    for given in guesses:
        training = record(model, *given, training=True, backings=[failed.backing], parameters=parameters)
        if training.failure is None:
            evaluation = record(model, *given, parameters=parameters)
            if evaluation.failure is None:
                return _traced(evaluation, training, given)
        elif failed.backing == "real" and training.failure == failed.failure:
            return None
    return None


def _traced(evaluation: Trace, training: Trace, given: Inputs) -> Traced:
    failure = training.failure
    note = f"training mode fails on this input; operations that run only there, after the error, are missing: {failure}"
    return [evaluation, training], [note] if failure else [], given


def inputs(model: nn.Module, example_input: Any = None) -> Inputs:
    """Return the input that is tried first; the model does not run."""
    return next(_candidates(model, example_input))[1]


def _candidates(model: nn.Module, example_input: Any) -> Iterator[tuple[str, Inputs]]:
    if example_input is not None:
        yield f"the example input {_shapes(example_input)}", _arguments(example_input)
        return
    like = where(model)
    configured = configured_size(model)
    first = next((m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)), None)
    if configured is not None:
        shapes = [("the input size of its own configuration", configured)]
    else:
        channels = first.in_channels if first is not None else 3
        axes = len(first.kernel_size) if first is not None else 2
        shapes = [("a guessed input", (channels, *(size,) * axes)) for size in _GUESSED_SIZES]
    for origin, shape in shapes:
        x = torch.ones((2, *shape), dtype=like.dtype, device=like.device)
        yield f"{origin} {tuple(x.shape)}", ((x,), {})


def configured_size(model: nn.Module) -> tuple[int, ...] | None:
    """Return the (channels, height, width) that the configuration of a timm or Hugging Face model names, else None."""
    timm = getattr(model, "pretrained_cfg", None)
    size = timm.get("input_size") if isinstance(timm, dict) else getattr(timm, "input_size", None)
    if size:
        return (getattr(model, "in_chans", None) or size[0], *size[1:])
    config = getattr(model, "config", None)
    size = getattr(config, "image_size", None)
    if size:
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return (getattr(config, "num_channels", 3), *sides)
    return None


def _arguments(example_input: Any) -> Inputs:
    if isinstance(example_input, dict):
        return (), example_input
    if isinstance(example_input, tuple):
        return example_input, {}
    return (example_input,), {}


def _shapes(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shapes(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shapes, value)) + "]"
    text = repr(value)
    return text if len(text) < 60 and "\n" not in text else f"of type {type(value).__name__}"
