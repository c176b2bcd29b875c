"""What a command's arguments name: a model, a file, or both."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import AliasfixError
from ..files import directory, loading, models, saving
from ..files.checkpoint import Checkpoint
from ..files.models import Source
from ..files.record import LIBRARIES, Record, recipe_difference
from ..planning.plan import Plan
from ..recipe import Recipe
from . import batch, console


def names_file(target: str) -> bool:
    """Whether an argument is a file or directory rather than a model's name."""
    looks = ":" not in target and (os.sep in target or Path(target).suffix in (*saving.SUFFIXES, ".pt2"))
    return looks or os.path.isfile(target) or directory.is_model(Path(target))


def find(target: str) -> Source:
    """The model that a name means, with a note where two libraries have it."""
    with console.working("looking for the model"):
        source = models.find(target)
    if source.also:
        console.note(f"{target} is taken from {source.library}; {source.also} has one too: {source.also}:{target}")
    return source


def read(path: Path, trust: bool, recipe: Recipe) -> Checkpoint:
    """A checkpoint that was not converted by another recipe."""
    with console.working(f"reading {path}"):
        file = batch.read(path, trust)
    same_recipe(file, recipe)
    return file


def same_recipe(file: Checkpoint, recipe: Recipe) -> None:
    """Refuse a file that was converted by another recipe."""
    if file.record is not None:
        before = file.record.plan.recipe
        if before != recipe:
            raise AliasfixError(
                f"{file.path} was converted with another recipe ({recipe_difference(before, recipe)}): "
                f"convert the file it was made from"
            )


def load(model: nn.Module, file: Checkpoint, source: Source) -> None:
    """Load weights strictly; where they do not fit, say which model they may be of."""
    try:
        loading.load_weights(model, file, str(source))
    except loading.MisfitError as error:
        hints = []
        if source.also:
            hints.append(f"{source.name} is in {source.also} too: try {source.also}:{source.name}")
        if file.model_name not in (None, source.name):
            hints.append(f"its trainer names the model {file.model_name}")
        raise AliasfixError("; ".join([str(error), *hints])) from error


def build(
    source: Source, args: dict[str, Any], file: Checkpoint | None, random_weights: bool = False, seed: int | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A model with a checkpoint's weights or its library's, or random ones of a seed; and what it was built with."""
    if file is not None and source.library == "timm":
        args = file.factory_args() | args
    with console.working(f"building {source}"):
        if seed is not None:
            torch.manual_seed(seed)
        model = models.build(source, args, pretrained=file is None and not random_weights)
    if file is not None:
        load(model, file, source)
    return model, args


def record(source: Source, args: dict[str, Any], plan: Plan) -> Record:
    """What is stored with the weights: the base only where loading it imports no code of the user's."""
    stored = source.library in LIBRARIES
    return Record(plan, str(source) if stored else None, args if stored else {})


def result(source: Source, args: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """A plan for machines, with the model that it is of."""
    return {
        "model": str(source),
        "args": args,
        "converted": len(plan.converted),
        "kept": len(plan.kept),
        "plan": json.loads(plan.to_json()),
    }
