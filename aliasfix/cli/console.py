"""What the command line prints: results on stdout, everything else on stderr."""

import contextlib
import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, ParamSpec

import typer
from rich.console import Console

from ..errors import AliasfixError, NoEffectWarning
from ..planning.plan import Plan
from ..text.wording import printable

Arguments = ParamSpec("Arguments")


def fail(message: object, code: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    print(f"aliasfix: error: {printable(str(message))}", file=sys.stderr)
    raise typer.Exit(code)


def note(message: object) -> None:
    """Tell the user something that is no result."""
    print(f"aliasfix: {printable(str(message))}", file=sys.stderr)


def one_line_errors(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A command whose user's mistakes end in one line instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except AliasfixError as error:
            fail(error)

    return wrapped


@contextlib.contextmanager
def working(doing: str, spin: bool = True) -> Iterator[None]:
    """Show on a terminal that something is going on, and keep stdout for the result whatever a library prints.

    Without ``spin`` what is done shows its own progress.
    """
    console = Console(stderr=True)
    status = console.status(f"{doing} …") if spin and console.is_terminal else contextlib.nullcontext()
    with contextlib.redirect_stdout(sys.stderr), status, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(w.message) for w in caught if not issubclass(w.category, NoEffectWarning)):
        note(f"warning: {text}")


def print_json(value: Any) -> None:
    """A result for machines."""
    print(json.dumps(value, indent=2))


def print_table(result: object) -> None:
    """What prints as a table, of the terminal's width and colours where there is one."""
    if sys.stdout.isatty():
        Console().print(result)
    else:
        print(result)


def print_plan(plan: Plan) -> None:
    """A plan, and its notes on stderr."""
    print_table(plan)
    for text in plan.notes:
        note(text)
