"""``aliasfix convert``."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AliasfixError
from ..files import batch, directory, formats, opening
from ..files.converting import ConvertedFile, convert_file
from ..files.formats import pytorch
from ..images.preprocessing import Preprocessing
from ..recipe import Recipe
from ..text.wording import one_line
from . import console, options, targets


@console.one_line_errors
@options.recipe_options()
@options.preprocessing_options
def convert(
    target: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    output: options.Output,
    checkpoints: options.Checkpoints = None,
    arg: options.Arg = None,
    *,
    recipe: Recipe,
    preprocessing: Preprocessing,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    input_size: options.InputSize = None,
    stream: options.Stream = False,
    calibrate: options.Calibrate = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert a model, and write its weights with the recipe.

    A conversion changes no weight: the output keeps keys, tensors and everything that a trainer put beside
    them (of a checkpoint with averaged weights, those are the ones that are loaded). A raw conversion must be
    calibrated or fine-tuned before use. With --calibrate the weights are adapted to the blurs on your images,
    and written alone. --size to --interpolation say how the images are prepared, where neither the checkpoint nor
    the model's configuration does; the file keeps it. Of many checkpoints, those that fail are listed at the end.

    \b
    aliasfix convert timm:resnet50.a1_in1k -o resnet50.safetensors
    aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o mine-aliasfix.pth
    aliasfix convert timm:resnet50 --checkpoint model_best.pth.tar -o converted.pth.tar
    aliasfix convert timm:resnet50 --checkpoint mine.pth -o converted/    # timm opens local-dir:converted
    aliasfix convert downloads/resnet50/ -o converted/                    # a directory that timm wrote
    aliasfix convert downloads/hf-resnet/ -o converted.safetensors        # one that transformers wrote
    aliasfix convert timm:resnet50 --checkpoint runs/ -o converted-runs/  # all that are in runs/
    aliasfix convert timm:resnet50.a1_in1k --calibrate photos/ -o calibrated.safetensors
    aliasfix convert resnet18 --checkpoint mine.pth --calibrate photos/ --size 48 --mean 0.5 --std 0.5 -o out.pth
    aliasfix convert mypackage.nets:make_net --checkpoint net.pt --filter bin5 --padding zero -o net-aliasfix.pt
    """
    args, example = options.arguments(arg), options.example(input_size)
    if directory.is_model(Path(target)):
        checkpoints = [Path(target), *(checkpoints or [])]
        target, own = directory.base(Path(target))
        args = own | args
    _check_usage(target, output, checkpoints or [], random_weights)
    if calibrate is not None and stream:
        console.fail("--calibrate changes the weights, and --stream copies them: they exclude each other", 2)
    tasks = batch.tasks(checkpoints or [], output)
    source = targets.find(target)
    results, failures = [], {}
    for task in tasks:
        try:
            with console.working(f"converting {source}", quiet):
                result = convert_file(
                    task.given, task.output, base=source, base_args=args, recipe=recipe, example_input=example,
                    images=calibrate, preprocessing=preprocessing, stream=stream, pretrained=not random_weights,
                    trust=trust_pickle, parents=task.output != output,
                )  # fmt: skip
        except Exception as error:  # one file of many; the others are converted
            if len(tasks) == 1:
                raise
            failures[str(task.given)] = str(error) if isinstance(error, AliasfixError) else one_line(error)
            continue
        results.append(result)
        if not as_json and not quiet:
            _tell(result)
    if as_json:
        listed = [_to_dict(result) for result in results]
        console.print_json(listed[0] if len(tasks) == 1 else {"results": listed, "failures": failures})
    for path, text in failures.items():
        console.note(f"failed: {text if path in text else f'{path}: {text}'}")
    if failures:
        console.fail(f"{len(failures)} of {len(tasks)} checkpoints could not be converted")
    if not any(result.plan.converted for result in results):
        raise typer.Exit(3)


def _to_dict(result: ConvertedFile) -> dict[str, Any]:
    """What became of one checkpoint, for machines."""
    written = None if result.path is None else str(result.path)
    found = {} if result.calibration is None else {"calibration": result.calibration.as_dict()}
    return targets.result(result.source, result.args, result.plan) | {"output": written} | found


def _tell(result: ConvertedFile) -> None:
    """What became of one checkpoint, for people."""
    console.print_plan(result.plan)
    if result.path is None:
        console.note(f"nothing to convert in {result.source}: nothing is written")
        return
    count = f"{len(result.plan.converted)} of {len(result.plan)} sampling operations converted"
    print(f"{result.path}: {result.source}, {count}")
    if result.calibration is not None:
        console.print_table(result.calibration)
    if result.plan.calibration is None:
        print("A raw conversion changes what the network computes: calibrate or fine-tune it before use.")
    entries = ", ".join(result.left_out)
    if entries and result.calibration is not None:
        console.note(f"written are the calibrated weights alone, without {entries}")
    elif entries:
        kind = ".safetensors" if os.path.isdir(result.path) else result.path.suffix
        console.note(f"a {kind} file holds only weights, not {entries}; -o X.pth would")


def _check_usage(target: str, output: str, checkpoints: list[Path], random_weights: bool) -> None:
    if opening.names_file(target):
        pytorch.refuse_program(Path(target))  # there is no model of it to name
        console.fail(f"{target} is a file: name its model, and the file as --checkpoint {target}", 2)
    if checkpoints and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    form = formats.of(output)
    if not directory.is_directory(output) and (form is None or form.write is None):
        console.fail(f"-o {output}: the suffix tells the format, one of {', '.join(formats.writable())}, or DIR/", 2)
