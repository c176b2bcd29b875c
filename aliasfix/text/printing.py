"""What rich draws as a table prints as one everywhere."""

from typing import ClassVar


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
