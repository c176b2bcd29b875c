"""Open a model with its weights, from a name, a file or both."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conversion import unblurred
from ..errors import AliasfixError
from ..recipe import Recipe
from . import checkpoint, directory, formats, loading, models, store, trained
from .checkpoint import Checkpoint
from .models import Source


def names_file(target: str) -> bool:
    """Whether a text is a file or directory rather than a model's name.

    >>> names_file("net.pth"), names_file("timm:resnet18")
    (True, False)
    """
    looks = ":" not in target and (os.sep in target or Path(target).suffix == ".pt2" or formats.of(target) is not None)
    if os.path.isdir(target):  # one without a model in it is neither
        return directory.is_model(Path(target))
    return looks or os.path.isfile(target)


def read_weights(path: str | Path, trust: bool = False) -> Checkpoint:
    """A checkpoint from a file, or from a model's directory.

    Raises:
        AliasfixError: as of `read_checkpoint` and `read_directory`.
    """
    return (
        directory.read_directory(Path(path), trust) if os.path.isdir(path) else checkpoint.read_checkpoint(path, trust)
    )


def open_model(
    target: str | Source,
    args: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    *,
    base: str | Source | None = None,
    recipe: Recipe | None = None,
    pretrained: bool = True,
    seed: int | None = None,
    trust: bool = False,
) -> nn.Module:
    """A model by name, with the weights of its library or of a file, or the model of a converted file; in eval mode.

    Args:
        target: what builds the model, or a file or directory that aliasfix converted.
        args: what the model's factory is called with.
        weights: a checkpoint for a model by name; of a converted one, the conversion is repeated.
        base: what builds the model of a converted file that does not say it.
        recipe: refuse a file of another recipe.
        pretrained: without ``weights``, those of the library; else random ones.
        seed: of random weights.
        trust: also read a pickle that holds code, which runs it.

    Raises:
        AliasfixError: no such model, a file that cannot be read or was not converted, or weights that do not fit.
    """
    if isinstance(target, str) and names_file(target):
        file = read_weights(target, trust)
        says_it = file.record is not None and file.record.base is not None
        return open_converted(file, None if says_it else base, args, recipe)
    source = models.find(target) if isinstance(target, str) else target
    given = None if weights is None else read_weights(weights, trust)
    if given is not None and given.record is not None:
        return open_converted(given, source, args, recipe)
    return build(source, args, given, pretrained, seed)[0].eval()


def open_converted(
    file: Checkpoint,
    base: str | Source | None = None,
    args: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
) -> nn.Module:
    """The model of a converted file; in eval mode.

    Args:
        file: what `read_weights` returned.
        base: what builds the model, where the file does not say it.
        args: what its factory is called with.
        recipe: refuse a file of another recipe.

    Raises:
        AliasfixError: the file was not converted, is of another recipe, or does not fit.
    """
    if file.record is None:
        raise AliasfixError(
            f"{file.path} was not converted by aliasfix: convert it first, or name its model, and it as "
            f"--checkpoint {file.path}"
        )
    if base is None and file.record.base is None:
        raise AliasfixError(
            f"{file.path} does not say how its model is built: name that, as in aliasfix export MODEL --checkpoint "
            f"{file.path} or aliasfix verify {file.path} --model MODEL"
        )
    model = None if base is None else models.build(base, args, pretrained=False)
    return store.restore(file, store.recorded(file), model, recipe).eval()


def open_original(target: str | Source, converted: nn.Module, args: Mapping[str, Any], trust: bool) -> nn.Module:
    """A model by name with its library's weights, or a converted model before its conversion with a file's weights."""
    if isinstance(target, Source) or not names_file(target):
        return models.build(target, args, pretrained=True)
    before = unblurred(converted)
    _load(before, read_weights(target, trust), target)
    return before


def build(
    source: Source,
    args: Mapping[str, Any] | None,
    file: Checkpoint | None,
    pretrained: bool = True,
    seed: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A model with a checkpoint's weights or its library's, or random ones of a seed; and what it was built with."""
    given = dict(args or {})
    if file is not None and source.library == "timm":
        given = file.factory_args() | given
    if seed is not None:
        torch.manual_seed(seed)
    model = models.build(source, given, pretrained=pretrained and file is None)
    if file is not None:
        load_into(model, file, source)
        trained.remember_images(model, file)
    elif pretrained:
        trained.remember_library(model, source, given)
    return model, given


def load_into(model: nn.Module, file: Checkpoint, source: Source) -> None:
    """Load weights strictly; where they do not fit, say which model they may be of."""
    try:
        _load(model, file, str(source))
    except loading.MisfitError as error:
        hints = []
        if source.also:
            hints.append(f"{source.name} is in {source.also} too: try {source.also}:{source.name}")
        if file.model_name not in (None, source.name):
            hints.append(f"its trainer names the model {file.model_name}")
        raise AliasfixError("; ".join([str(error), *hints])) from error


def _load(model: nn.Module, file: Checkpoint, name: str) -> None:
    """Load weights, with a warning where a prefix of their keys was taken off."""
    if remark := loading.load_weights(model, file, name):
        warnings.warn(f"{file.path}: {remark}", stacklevel=4)
