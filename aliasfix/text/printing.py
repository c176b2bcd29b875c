"""What rich draws as a table prints as one everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


class Tabular:
    """A result with a ``__rich__``: its text is what rich draws of it, without colours.

    >>> from rich.table import Table
    >>> class Answer(Tabular):
    ...     def __rich__(self) -> Table:
    ...         return Table("answer", box=None, pad_edge=False)
    >>> str(Answer())
    'answer'
    """

    _width: ClassVar[int] = 120
    """Of the text, in characters."""

    def __str__(self) -> str:
        from rich.console import Console  # here, so that ``import aliasfix`` is quick

        console = Console(width=self._width, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


def plain_table(caption: str, doubt: str | None = None) -> Table:
    """An empty table with a text below it; above it, why nothing can be concluded from its figures, if so."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title_justify="left", caption_justify="left", title_style="bold")
    table.title, table.caption = (f"No conclusion: {doubt}." if doubt else None), caption or None
    return table
