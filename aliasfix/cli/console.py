"""What the command line prints: results on stdout, everything else on stderr."""

import contextlib
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, ParamSpec

import typer
from rich.console import Console

from ..errors import AliasfixError, NoEffectWarning
from ..planning.plan import Plan
from ..text.progress import Work, reporting, say
from ..text.wording import printable

Arguments = ParamSpec("Arguments")
_is_another = os.environ.get("RANK", "0") != "0"  # process of a run on several, of which the first speaks


def fail(message: object, code: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    print(f"aliasfix: error: {printable(str(message))}", file=sys.stderr)
    raise typer.Exit(code)


def note(message: object) -> None:
    """Tell the user something that is no result."""
    say(message)


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
def working(doing: str | Work, quiet: bool = False) -> Iterator[None]:
    """Show that something is going on and how far it is, and keep stdout for the result whatever a library prints.

    Warnings are told as they come, each once.
    """
    told = set()

    def tell(message: Warning | str, category: type[Warning], *where: object) -> None:
        if not issubclass(category, NoEffectWarning) and str(message) not in told:
            told.add(str(message))
            note(f"warning: {message}")

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(), reporting(doing, quiet or _is_another):
        warnings.simplefilter("always")
        warnings.showwarning = tell  # type: ignore[assignment]
        yield


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
