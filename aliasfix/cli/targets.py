"""What a command's arguments name: a model, a file, or both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..files import models, opening
from ..files.models import Source
from ..planning.plan import Plan
from ..recipe import Recipe
from . import console


def find(target: str) -> Source:
    """The model that a name means, with a note where two libraries have it."""
    with console.working("looking for the model"):
        source = models.find(target)
    if source.also:
        console.note(f"{target} is taken from {source.library}; {source.also} has one too: {source.also}:{target}")
    return source


def open_model(
    target: str,
    args: Mapping[str, Any],
    checkpoint_file: Path | None,
    random_weights: bool,
    trust: bool,
    *,
    base: str | None = None,
    recipe: Recipe | None = None,
    seed: int | None = None,
) -> nn.Module:
    """The model that a command is given; see `aliasfix.files.opening.open_model`.

    Of the default recipe nothing is known to be wanted: a file of any recipe is taken.
    """
    if checkpoint_file is not None and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    named = target if opening.names_file(target) else find(target)
    with console.working(f"loading {named}" if isinstance(named, str) else f"building {named}"):
        return opening.open_model(
            named,
            args,
            checkpoint_file,
            base=base,
            recipe=None if recipe == Recipe() else recipe,
            pretrained=not random_weights,
            seed=seed,
            trust=trust,
        )


def result(source: Source, args: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A plan for machines, with the model that it is of."""
    return {
        "model": str(source),
        "args": dict(args),
        "converted": len(plan.converted),
        "kept": len(plan.kept),
        "plan": json.loads(plan.to_json()),
    }
