"""``aliasfix convert``."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from .. import surgery
from ..calibration import Calibration
from ..calibration import calibrate as calibrate_model
from ..conversion import convert as convert_model
from ..conversion import inspect as inspect_model
from ..conversion import report
from ..errors import AliasfixError
from ..files import checkpoint, directory, saving, store, streaming
from ..files.checkpoint import Checkpoint
from ..files.models import Source
from ..planning.plan import Plan
from ..recipe import Recipe
from ..text.wording import one_line
from ..version import __version__
from . import batch, console, options, targets
from .batch import Task


@console.one_line_errors
@options.recipe_options()
def convert(
    target: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    output: options.Output,
    checkpoints: options.Checkpoints = None,
    arg: options.Arg = None,
    *,
    recipe: Recipe,
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
    and written alone. Of many checkpoints, those that fail are listed at the end.

    \b
    aliasfix convert timm:resnet50.a1_in1k -o resnet50.safetensors
    aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o mine-aliasfix.pth
    aliasfix convert timm:resnet50 --checkpoint model_best.pth.tar -o converted.pth.tar
    aliasfix convert timm:resnet50 --checkpoint mine.pth -o converted/    # timm opens local-dir:converted
    aliasfix convert downloads/resnet50/ -o converted/                    # a directory that timm wrote
    aliasfix convert downloads/hf-resnet/ -o converted.safetensors        # one that transformers wrote
    aliasfix convert timm:resnet50 --checkpoint runs/ -o converted-runs/  # all that are in runs/
    aliasfix convert timm:resnet50.a1_in1k --calibrate photos/ -o calibrated.safetensors
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
    found = batch.tasks(checkpoints or [], output)
    source: Source | None = None
    results, failures = [], {}
    for task in found:
        try:
            if not task.as_directory and len(found) == 1:
                saving.check_file(task.output)
            source = source or targets.find(target)
            if calibrate is None and task.given is not None and (stream or streaming.is_large(task.given)):
                result = _stream(source, args, task.given, task.output, recipe, example)
            else:
                result = _convert(source, args, task, recipe, example, random_weights, trust_pickle, calibrate)
        except Exception as error:
            if len(found) == 1:
                raise
            failures[str(task.given)] = str(error) if isinstance(error, AliasfixError) else one_line(error)
            continue
        results.append(result)
        if not as_json and not quiet:
            result.tell()
    if as_json:
        listed = [result.to_dict() for result in results]
        console.print_json(listed[0] if len(found) == 1 else {"results": listed, "failures": failures})
    for path, text in failures.items():
        console.note(f"failed: {text if path in text else f'{path}: {text}'}")
    if failures:
        console.fail(f"{len(failures)} of {len(found)} checkpoints could not be converted")
    if not any(result.plan.converted for result in results):
        raise typer.Exit(3)


@dataclass(frozen=True)
class _Result:
    """What became of one checkpoint."""

    source: Source
    args: dict[str, Any]
    plan: Plan
    output: Path
    lost: list[str]
    calibration: Calibration | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result for machines."""
        written = str(self.output) if self.plan.converted else None
        found = {} if self.calibration is None else {"calibration": self.calibration.as_dict()}
        return targets.result(self.source, self.args, self.plan) | {"output": written} | found

    def tell(self) -> None:
        """The result for people."""
        console.print_plan(self.plan)
        if not self.plan.converted:
            console.note(f"nothing to convert in {self.source}: nothing is written")
            return
        count = f"{len(self.plan.converted)} of {len(self.plan)} sampling operations converted"
        print(f"{self.output}: {self.source}, {count}")
        if self.calibration is not None:
            console.print_table(self.calibration)
        if self.plan.calibration is None:
            print("A raw conversion changes what the network computes: calibrate or fine-tune it before use.")
        if self.lost and self.calibration is not None:
            console.note(f"written are the calibrated weights alone, without {', '.join(self.lost)}")
        elif self.lost:
            console.note(f"a .safetensors file holds only weights, not {', '.join(self.lost)}; -o X.pth would")


def _convert(
    source: Source,
    args: dict[str, Any],
    task: Task,
    recipe: Recipe,
    example: torch.Tensor | None,
    random_weights: bool,
    trust: bool,
    images: Path | None,
) -> _Result:
    file = None if task.given is None else targets.read(task.given, trust, recipe)
    model, args = targets.build(source, args, file, random_weights)
    with console.working("converting"):
        convert_model(model, recipe=recipe, example_input=example, inplace=True)
        plan = report(model) or inspect_model(model, recipe=recipe, example_input=example)
    lost: list[str] = []
    calibration: Calibration | None = None
    if plan.converted:
        _check_blurs(file, model)
        if file is not None and file.record is not None and file.record.plan.calibration is not None:
            plan = surgery.note_calibration(model, file.record.plan.calibration)
        lost = file.beside if file is not None and (images or _weights_alone(task)) else []
        if images is not None:
            with console.working("calibrating", spin=False):
                calibration = calibrate_model(model.eval(), images)
            plan, file = report(model) or plan, None
        file = file or Checkpoint(task.output, {"state_dict": model.state_dict()})
        with console.working(f"writing {task.output}"):
            task.output.parent.mkdir(parents=True, exist_ok=True)
            store.write_converted(
                task.output, task.as_directory, file, model, targets.record(source, args, plan), example
            )
    return _Result(source, args, plan, task.output, lost, calibration)


def _stream(
    source: Source, args: dict[str, Any], given: Path, output: Path, recipe: Recipe, example: torch.Tensor | None
) -> _Result:
    """Convert a checkpoint without loading it: of a model on the meta device, with the file's tensors copied."""
    with console.working(f"reading the header of {given}"):
        stream = streaming.read_header(given)
        targets.same_recipe(stream.checkpoint, recipe)
        model = store.rebuild(str(source), args)
        targets.load(model, stream.checkpoint, source)
    with console.working("converting"):
        convert_model(model, recipe=recipe, example_input=None if example is None else example.to("meta"), inplace=True)
        plan = report(model) or inspect_model(model, recipe=recipe)
    if plan.converted:
        with console.working(f"writing {output}"):
            streaming.write_streamed(output, stream, replace(targets.record(source, args, plan), version=__version__))
    return _Result(source, args, plan, output, [])


def _weights_alone(task: Task) -> bool:
    return task.as_directory or task.output.suffix == ".safetensors"


def _check_blurs(file: Checkpoint | None, model: nn.Module) -> None:
    """Weights that come from a converted model must have been under the same blurs."""
    if file is not None and file.blurs and file.blurs != checkpoint.blurs(model.state_dict()):
        raise AliasfixError(
            f"{file.path} holds weights of a model that aliasfix converted at {len(file.blurs)} places, and not by "
            f"this recipe: repeat its recipe, or revert the model before saving its weights"
        )


def _check_usage(target: str, output: str, checkpoints: list[Path], random_weights: bool) -> None:
    if targets.names_file(target):
        if Path(target).suffix != ".safetensors" and os.path.isfile(target):
            checkpoint.check_whole(Path(target))  # of a program there is no model to name
        console.fail(f"{target} is a file: name its model, and the file as --checkpoint {target}", 2)
    if checkpoints and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    if not directory.is_directory(output) and Path(output).suffix not in saving.SUFFIXES:
        console.fail(f"-o {output}: the suffix tells the format, one of {', '.join(saving.SUFFIXES)}, or DIR/", 2)
