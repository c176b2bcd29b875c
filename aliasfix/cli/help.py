"""What ``--help`` shows: the common options on one screen; ``--help-all`` shows the others, too."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

EXAMPLES = 3
"""How many examples are shown on the one screen."""
_ALL = "aliasfix.help-all"


class Command(TyperCommand):
    """A command whose rare options, those of a panel, are only named by ``--help``; `with_all` adds ``--help-all``."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The first paragraph and a few examples, or all of the text."""
        whole = self.help
        if whole and not ctx.meta.get(_ALL):
            text, mark, examples = whole.partition("\b\n")
            few = "".join(examples.splitlines(keepends=True)[:EXAMPLES])
            self.help = f"{text.split(chr(10) * 2)[0]}\n\n{mark}{few}"
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = whole

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The common options, then the others, or only what these are called."""
        params: list[Any] = list(self.params)
        rare = [one for one in params if getattr(one, "rich_help_panel", None) is not None]
        self.params = [one for one in params if one not in rare]
        try:
            super().format_options(ctx, formatter)
        finally:
            self.params = params
        for panel in dict.fromkeys(one.rich_help_panel for one in rare):
            members = [one for one in rare if one.rich_help_panel == panel]
            with formatter.section(panel if ctx.meta.get(_ALL) else f"{panel} (--help-all explains them)"):
                if ctx.meta.get(_ALL):
                    formatter.write_dl([one.get_help_record(ctx) for one in members])
                else:
                    formatter.write_text(", ".join(one.opts[0] for one in members))


def with_all(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``--help-all``."""

    @functools.wraps(command)
    def wrapped(help_all: bool = False, **given: Any) -> None:
        command(**given)

    own = inspect.signature(command)
    shown = typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show every option and example.")
    option = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, shown]
    )
    wrapped.__signature__ = own.replace(parameters=[*own.parameters.values(), option])  # type: ignore[attr-defined]
    return wrapped


def _show_all(ctx: typer.Context, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        print(ctx.get_help())
        raise typer.Exit
