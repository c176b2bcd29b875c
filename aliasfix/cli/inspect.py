"""``aliasfix inspect``."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..conversion import inspect as inspect_model
from ..files import opening
from ..files.record import Record
from ..recipe import Recipe
from ..text.wording import printable
from . import console, options, targets


@console.one_line_errors
@options.recipe_options()
def inspect(
    target: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", show_default=False)],
    *,
    recipe: Recipe,
    arg: options.Arg = None,
    input_size: options.InputSize = None,
    trust_pickle: options.TrustPickle = False,
    as_json: options.Json = False,
) -> None:
    """Show what a conversion would do to a model, or what a file holds.

    \b
    aliasfix inspect resnet50
    aliasfix inspect timm:resnet50 --filter bin5 --stem full
    aliasfix inspect torchvision:densenet121 --average replace --exclude 'features.transition3*'
    aliasfix inspect resnet50 --budget 1.1    # leave out what costs most
    aliasfix inspect mypackage.nets:make_net --arg depth=4 --input-size 1,128,128
    aliasfix inspect out.safetensors
    aliasfix inspect resnet50 --json | jq '.plan.steps[].reason'
    """
    if opening.names_file(target):
        return _inspect_file(Path(target), trust_pickle, as_json)
    args, example = options.arguments(arg), options.example(input_size)
    source = targets.find(target)
    with console.working(f"building {source}"):
        model = opening.open_model(source, args, pretrained=False)
    with console.working("tracing the model"):
        plan = inspect_model(model, recipe=recipe, example_input=example)
    if as_json:
        console.print_json(targets.result(source, args, plan))
    else:
        console.print_plan(plan)
    if not plan.converted:
        raise typer.Exit(3)


def _inspect_file(path: Path, trust: bool, as_json: bool) -> None:
    with console.working(f"reading {path}"):
        file = opening.read_weights(path, trust)
    tensors = [value for value in file.state.values() if isinstance(value, torch.Tensor)]
    facts = {
        "file": str(path),
        "aliasfix": None if file.record is None else file.record.to_dict(),
        "entry": file.entry,
        "tensors": len(tensors),
        "values": sum(tensor.numel() for tensor in tensors),
        "beside": file.beside,
        "model": file.model_name,
    }
    if as_json:
        console.print_json(facts)
        return
    beside = f", beside {', '.join(file.beside)}" if file.beside else ""
    _say(f"{path}: {facts['tensors']} tensors of {facts['values']:,} values in {file.entry}{beside}")
    if file.record is None:
        args = [f"--arg {key}={value}" for key, value in file.factory_args().items()]
        command = " ".join(["aliasfix inspect", file.model_name or "MODEL", *args])
        print("Not converted by aliasfix. Weights do not say how they are used: to see what would be converted, name")
        _say(f"their model, as in: {command}")
    else:
        _print_record(file.record)


def _print_record(record: Record) -> None:
    given = "".join(f" --arg {key}={value}" for key, value in record.base_args.items())
    base = record.base or "A model that the file does not name"
    _say(f"{base}{given}, converted by aliasfix {record.version} with this recipe:")
    for option, value in json.loads(record.plan.recipe.to_json()).items():
        _say(f"  {option:8} {'-' if value is None else value}")
    if record.images is not None:
        values = {
            name: " ".join(map(str, v)) if isinstance(v, list) else v for name, v in record.images.to_dict().items()
        }
        _say(f"Images: {', '.join(f'{name} {value}' for name, value in values.items())}")
    if (calibration := record.plan.calibration) is not None:
        _say(f"Calibrated by {calibration['method']} on {calibration['images']} images.")


def _say(text: str) -> None:
    """Print what a file says."""
    print(printable(text))
