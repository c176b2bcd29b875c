"""``aliasfix export``."""

from pathlib import Path
from typing import Annotated

import typer

from ..conversion import convert, report
from ..files import exporting, opening
from ..recipe import Recipe
from . import console, options, targets

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
    if opening.names_file(target) and (args or checkpoint_file is not None or random_weights):
        console.fail(f"{target} is a file: --checkpoint, --arg and --random-weights are those of a model", 2)
    model = targets.open_model(target, args, checkpoint_file, random_weights, trust_pickle, recipe=recipe)
    if report(model) is None:
        with console.working("converting"):
            convert(model, recipe=recipe, example_input=example, inplace=True)
    if report(model) is None:
        console.note(f"nothing to convert in {target}: nothing is written")
        raise typer.Exit(3)
    with console.working(f"exporting to {output}", quiet):
        difference = exporting.export(model, output, example_input=example, dynamic=opened)
    if difference is None:
        console.note(f"{output} was not run: onnxruntime is not installed")
    elif not quiet:
        runner = "onnxruntime" if output.suffix == ".onnx" else "torch.export"
        print(f"{output}: its output in {runner} differs from the model's by {difference:.1g} of the scale")
