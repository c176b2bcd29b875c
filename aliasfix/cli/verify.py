"""``aliasfix verify``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..checks.guarantee import guarantee
from ..checks.laws import verify as verify_model
from ..files import opening
from . import console, options


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
    """Load a converted file, check the laws of the conversion, and say what it guarantees; exit code 1 if a law fails.

    \b
    aliasfix verify converted/
    aliasfix verify net-aliasfix.pt --model mypackage.nets:make_net --arg depth=4
    """
    args, example = options.arguments(arg), options.example(input_size)
    if args and model is None:
        console.fail("--arg are the arguments of --model: give that, too", 2)
    with console.working(f"loading {path}", quiet):
        loaded = opening.open_converted(opening.read_weights(path), model, args)
    with console.working("checking the laws", quiet):
        checked = verify_model(loaded, example_input=example)
    with console.working("measuring shifts", quiet):
        given = guarantee(loaded, example)
    if as_json:
        console.print_json(json.loads(checked.to_json()) | {"guarantee": json.loads(given.to_json())})
    elif not quiet:
        print(checked)
        print(f"\n{given}")
    if not checked.ok:
        console.fail(f"{path} breaks {sum(not law.ok for law in checked)} laws")
