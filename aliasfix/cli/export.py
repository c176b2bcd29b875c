"""``aliasfix export``."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ..conversion import convert as convert_model
from ..conversion import report
from ..errors import AliasfixError
from ..files import exporting, store
from ..files.checkpoint import Checkpoint
from ..recipe import Recipe
from . import batch, console, options, targets

_FORMATS = " or ".join(exporting.SUFFIXES)


@console.one_line_errors
@options.recipe_options()
def export(
    target: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help=f"What to write: {_FORMATS}.")],
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="batch,size", help="What the file leaves open; by default one image of one size at a time."
        ),
    ] = None,
    checkpoint_file: options.CheckpointFile = None,
    arg: options.Arg = None,
    *,
    recipe: Recipe,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    input_size: options.InputSize = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a converted model for where it runs: an ONNX file, or a program of torch.export.

    A file or directory that aliasfix converted is taken as it is; a MODEL is converted first, as by convert. What the
    written file computes is compared with PyTorch, of ONNX where onnxruntime is installed.

    \b
    aliasfix export converted/ -o model.onnx
    aliasfix export converted.safetensors -o model.onnx --dynamic batch,size
    aliasfix export converted.pth -o model.pt2 --input-size 3,320,320
    aliasfix export timm:resnet18 --checkpoint mine.pth --arg num_classes=10 --padding zero -o model.onnx
    aliasfix export mypackage.nets:make_net --checkpoint net-aliasfix.pt -o model.onnx
    """
    args, example = options.arguments(arg), options.example(input_size)
    opened = [what.strip() for what in (dynamic or "").split(",") if what.strip()]
    if not set(opened) <= set(exporting.DYNAMIC):
        console.fail(f"--dynamic {dynamic}: choose of {', '.join(exporting.DYNAMIC)}", 2)
    if output.suffix not in exporting.SUFFIXES:
        console.fail(f"-o {output}: the suffix tells the format, {_FORMATS}", 2)
    exporting.check_export(output)
    if targets.names_file(target):
        if args or checkpoint_file is not None or random_weights:
            console.fail(f"{target} is a file: --checkpoint, --arg and --random-weights are those of a model", 2)
        model = _load(Path(target), batch.read(Path(target), trust_pickle), None, recipe)
    else:
        model = _build(target, checkpoint_file, args, recipe, example, random_weights, trust_pickle)
    if report(model) is None:
        console.note(f"nothing to convert in {target}: nothing is written")
        raise typer.Exit(3)
    with console.working(f"exporting to {output}"):
        difference = exporting.export(model, output, example_input=example, dynamic=opened)
    if difference is None:
        console.note(f"{output} was not run: onnxruntime is not installed")
    elif not quiet:
        runner = "onnxruntime" if output.suffix == ".onnx" else "torch.export"
        print(f"{output}: its output in {runner} differs from the model's by {difference:.1g} of the scale")


def _load(path: Path, file: Checkpoint, model: nn.Module | None, recipe: Recipe) -> nn.Module:
    """A converted file; of the default recipe nothing is known to be wanted."""
    if file.record is None:
        raise AliasfixError(
            f"{path} was not converted by aliasfix: convert it first, or name its model, as in "
            f"aliasfix export MODEL --checkpoint {path}"
        )
    if file.record.base is None and model is None:
        raise AliasfixError(f"{path} does not name its model: aliasfix export MODEL --checkpoint {path}")
    with console.working(f"loading {path}"):
        return store.restore(file, store.recorded(file), model, None if recipe == Recipe() else recipe)


def _build(
    target: str,
    checkpoint_file: Path | None,
    args: dict[str, Any],
    recipe: Recipe,
    example: torch.Tensor | None,
    random_weights: bool,
    trust: bool,
) -> nn.Module:
    """A model by name, with its library's weights or those of a checkpoint, converted."""
    if checkpoint_file is not None and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    file = None if checkpoint_file is None else batch.read(checkpoint_file, trust)
    model, _ = targets.build(targets.find(target), args, file, random_weights)
    model.eval()
    if checkpoint_file is not None and file is not None and file.record is not None:
        return _load(checkpoint_file, file, model, recipe)
    with console.working("converting"):
        return convert_model(model, recipe=recipe, example_input=example, inplace=True)
