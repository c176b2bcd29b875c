"""``aliasfix compare``."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..comparison import Comparison, FilterSweep, figures, page
from ..comparison import compare as compare_models
from ..comparison import compare_filters as sweep_filters
from ..comparison.filter_sweep import NothingToConvertError
from ..files import opening
from ..images.preprocessing import Preprocessing
from ..recipe import Recipe
from ..text.wording import one_line
from . import console, options, targets


@console.one_line_errors
@options.recipe_options(without="filter")
@options.preprocessing_options
def compare(
    target: Annotated[str, typer.Argument(metavar="A", show_default=False)],
    images: options.Images,
    other: Annotated[str | None, typer.Argument(metavar="[B]", show_default=False)] = None,
    filters: options.Filters = None,
    html: options.Html = None,
    figures_in: options.Figures = None,
    checkpoint_file: options.CheckpointFile = None,
    arg: options.Arg = None,
    *,
    recipe: Recipe,
    preprocessing: Preprocessing,
    random_weights: options.RandomWeights = False,
    trust_pickle: options.TrustPickle = False,
    input_size: options.InputSize = None,
    output: options.OutputKey = None,
    kind: options.Kind = None,
    passes: options.Passes = 5,
    reach: options.Reach = 2,
    corruptions: options.Corruptions = False,
    batch_size: options.BatchSize = 16,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Measure two networks alike on your images, or one network with each of several filters.

    A and B are models, or files that aliasfix converted; --checkpoint and --arg are those of the models. With
    --filters there is no B: A is converted with each filter, and the command says which one it would take and
    why; --padding to --memory-budget are those of the conversions. --size to --interpolation say how images are
    prepared, where neither a file nor A's configuration does, or not as A was trained.

    \b
    aliasfix compare resnet18 out.pth --checkpoint mine.pth --images photos --html out.html
    aliasfix compare timm:resnet18 timm:resnet34 --images photos --json
    aliasfix compare resnet18 --checkpoint mine.pth --filters rect2,tri3,bin4,bin5 --images photos
    aliasfix compare mypackage.nets:make_net out.pth --images photos --output logits --figures figures
    aliasfix compare resnet18 out.pth --checkpoint mine.pth --images photos --size 48 --mean 0.5 --std 0.5
    """
    if (other is None) == (filters is None):
        console.fail("give a second model, or --filters to compare on one", 2)
    names = [name.strip() for name in (filters or "tri3").split(",") if name.strip()]
    for name in names:
        options.recipe({"filter": name})
    args, example = options.arguments(arg), options.example(input_size)
    where = _device(device)
    if html is not None:
        page.check_page(html)
    more: dict[str, Any] = {
        "size": preprocessing.size or (None if example is None else example.shape[-1]),
        "preprocessing": preprocessing,
        "passes": passes,
        "reach": reach,
        "corruptions": corruptions,
        "batch_size": batch_size,
        "seed": seed,
        "output": options.output(output, kind),
    }
    pair = [(one, beside) for one, beside in ((target, other), (other, target)) if one is not None]
    found = [
        targets.open_model(
            one, args, checkpoint_file, random_weights, trust_pickle, base=_model_named(beside), seed=seed
        ).to(where)
        for one, beside in pair
    ]
    sweep: FilterSweep | None = None
    with console.working("measuring"):
        if other is not None:
            result = compare_models(found[0], found[1], str(images), names=_called(target, other), **more)
        else:
            try:
                sweep = sweep_filters(found[0], names, str(images), recipe=recipe, **more)
            except NothingToConvertError as error:
                console.fail(error, 3)
            result = sweep.comparison
    show(result, sweep, html, figures_in, as_json)


def _model_named(target: str | None) -> str | None:
    """The model beside a file that does not say how its own is built."""
    return None if target is None or opening.names_file(target) else target


def _called(target: str, other: str) -> tuple[str, str]:
    """What to call two models: files by their names."""
    names = [Path(one).name if opening.names_file(one) else one for one in (target, other)]
    return (names[0], names[1]) if names[0] != names[1] else (f"{names[0]} (A)", f"{names[1]} (B)")


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        console.fail(f"--device {name}: {one_line(error)}", 2)


def show(
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
