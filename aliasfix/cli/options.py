"""The options of the command line, and what they mean."""

import ast
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import typer

from .. import methods
from ..errors import AliasfixError
from ..families import Returned
from ..images.preprocessing import Preprocessing
from ..recipe import Recipe
from . import console

Repeated = list[str] | None
_KINDS: Mapping[Any, Any] = {
    str: str | None,
    str | Sequence[float]: str | None,
    Sequence[str] | None: Repeated,
    float: float | None,
    float | None: float | None,
    int | None: int | None,
    str | None: str | None,
    float | Sequence[float] | None: str | None,
    int: int | None,
}
"""What the command line takes for each type of a field."""
COMMON = ("filter",)
"""The fields of a `Recipe` that ``--help`` shows as options; the others stand under ``--help-all``."""
RARE = "More options"
_PANELS: Mapping[type[Any], str] = {Recipe: "Options of the conversion", Preprocessing: "How images are prepared"}
Arg = Annotated[
    Repeated,
    typer.Option(metavar="KEY=VALUE", help="An argument of the model's factory, as num_classes=10. Repeatable."),
]
InputSize = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W", help="The input to trace the model with, if it does not say itself.", rich_help_panel=RARE
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Read a checkpoint that holds code, which runs that code.", rich_help_panel=RARE
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.", rich_help_panel=RARE)]
CheckpointFile = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="FILE", help="Your weights: a state dict, a trainer's checkpoint, or .safetensors."
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        metavar="PATH",
        help="Your weights: a state dict, a trainer's checkpoint, .safetensors, a model's directory, or a directory "
        "tree of them. Repeatable.",
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="What to write: a file, whose suffix tells the format (aliasfix list formats), or DIR/ for a model's "
        "directory; of several checkpoints, the directory for them all.",
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Do not load a .safetensors checkpoint but copy its tensors; by itself above half of memory.",
        rich_help_panel=RARE,
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        metavar="DIR",
        help="Adapt the weights to the blurs on the images in this folder, without labels: 64 to 256 are enough.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RARE)]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights", help="Without a checkpoint, do not ask for pretrained weights.", rich_help_panel=RARE
    ),
]

Images = Annotated[
    Path,
    typer.Option("--images", metavar="DIR", help="A folder of images; of folders of images, if they have labels."),
]
Filters = Annotated[
    str | None, typer.Option(metavar="NAME,NAME", help="Compare these filters on one model, such as rect2,tri3,bin5.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the result as one HTML file.")]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", metavar="DIR", help="Write every figure, as SVG and PNG.", rich_help_panel=RARE),
]
OutputKey = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="KEY",
        help="Where the tensor is in what the models return: a key or an index.",
        rich_help_panel=RARE,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="What it is: logits, 'label map', dense, boxes, keypoints or pitch, if unknown.",
        rich_help_panel=RARE,
    ),
]
Corruptions = Annotated[
    bool,
    typer.Option(
        "--corruptions", help="Measure errors under the 15 corruptions of ImageNet-C, too: slow.", rich_help_panel=RARE
    ),
]
Reach = Annotated[
    int, typer.Option(min=1, help="An adversary may shift the image by so many pixels.", rich_help_panel=RARE)
]
Passes = Annotated[
    int, typer.Option(min=1, help="Pairs of shifts that are drawn for each image.", rich_help_panel=RARE)
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Most inputs that a model is given at a time.", rich_help_panel=RARE)
]
Seed = Annotated[int, typer.Option(help="Of the shifts that are drawn, and of the intervals.", rich_help_panel=RARE)]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="Where the models run, such as cuda.", rich_help_panel=RARE)
]


Command = Callable[..., None]


def recipe_options(without: str = "") -> Callable[[Command], Command]:
    """Give a command ``--method`` and every option of a `Recipe`, but for one, in the place of ``recipe``."""
    return _options(Recipe, "recipe", recipe, without, [_METHOD])


def preprocessing_options(command: Command) -> Command:
    """Give a command every option of a `Preprocessing` in the place of its parameter ``preprocessing``."""
    return _options(Preprocessing, "preprocessing", preprocessing)(command)


def _options(
    kind: type[Any],
    place: str,
    make: Callable[[Mapping[str, Any]], Any],
    without: str = "",
    more: Sequence[inspect.Parameter] = (),
) -> Callable[[Command], Command]:
    """Give a command an option for each field that has a help text, in the place of a parameter."""
    fields = [one for one in dataclasses.fields(kind) if one.name != without and "help" in one.metadata]
    hints = get_type_hints(kind)
    options = [*more, *(_parameter(one, hints[one.name], _PANELS[kind]) for one in fields)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            said = {option.name: given.pop(option.name) for option in options}
            chosen = make({name: value for name, value in said.items() if value is not None})
            command(**given, **{place: chosen})

        own = inspect.signature(command)
        parameters = list(own.parameters.values())
        index = parameters.index(own.parameters[place])
        parameters[index : index + 1] = options
        wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def _parameter(option: "dataclasses.Field[Any]", hint: Any, panel: str) -> inspect.Parameter:
    """A field as an option that typer reads."""
    metavar = "|".join(map(str, option.metadata.get("choices", ()))) or option.metadata.get("metavar")
    default = False if option.default is None else str(option.default)
    shown = typer.Option(
        None,
        metavar=metavar,
        help=option.metadata["help"],
        show_default=default,
        rich_help_panel=None if option.name in COMMON else panel,
    )
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=_KINDS[hint])


_METHOD = inspect.Parameter(
    "method",
    inspect.Parameter.KEYWORD_ONLY,
    default=typer.Option(
        "blur", metavar="|".join(methods.names()), help="A named set of options; those given beside it win."
    ),
    annotation=str,
)


def recipe(given: Mapping[str, Any]) -> Recipe:
    """The recipe of the options given; a mistake in them ends the command."""
    chosen = dict(given)
    try:
        return Recipe(**{**methods.options(chosen.pop("method", "blur")), **chosen})
    except AliasfixError as error:
        console.fail(error, 2)


def preprocessing(given: Mapping[str, Any]) -> Preprocessing:
    """How images are prepared by the options given; a mistake in them ends the command."""
    said = dict(given)
    for name in ("mean", "std"):
        if name in said:
            try:
                said[name] = [float(part) for part in said[name].split(",")]
            except ValueError:
                console.fail(f"--{name} {said[name]}: write it as numbers with commas, such as 0.485,0.456,0.406", 2)
    try:
        return Preprocessing(**said)
    except AliasfixError as error:
        console.fail(error, 2)


def arguments(given: Repeated) -> dict[str, Any]:
    """``KEY=VALUE`` as JSON and Python write values, else as text.

    >>> arguments(["num_classes=10", "bias=false", "size=(2, 3)", "act=relu"])
    {'num_classes': 10, 'bias': False, 'size': (2, 3), 'act': 'relu'}
    """
    args = {}
    for pair in given or []:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            console.fail(f"--arg {pair}: write it as KEY=VALUE, such as num_classes=10", 2)
        for parse in (json.loads, ast.literal_eval, str):
            try:
                args[key] = parse(text)
                break
            except (ValueError, SyntaxError):
                continue
    return args


def output(key: str | None, kind: str | None) -> Returned:
    """What models return, as ``--output`` and ``--kind`` say."""
    at = int(key) if key is not None and key.lstrip("-").isdecimal() else key
    try:
        return Returned(kind, at)  # type: ignore[arg-type]  # it refuses what is no kind
    except AliasfixError as error:
        console.fail(error, 2)


def example(size: str | None) -> torch.Tensor | None:
    """An input of a size given as ``C,H,W``."""
    if size is None:
        return None
    sides = size.split(",")
    if not all(side.strip().isdecimal() and int(side) for side in sides):
        console.fail(f"--input-size {size}: write it as channels,height,width, such as 3,224,224", 2)
    return torch.ones(2, *map(int, sides))
