"""Errors and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager

from .text.wording import one_line, printable


class AliasfixError(Exception):
    """An error that the user can correct. Its message is one line, which says what to try next."""

    def __str__(self) -> str:
        return printable(super().__str__())


@contextmanager
def explaining(what: str, hint: str = "") -> Iterator[None]:
    """Report what others' code raises as an AliasfixError: what failed, the cause, and a hint.

    A model, a library and another package may raise anything. An AliasfixError passes as it is.

    >>> with explaining("the model does not run", "give another size"):
    ...     raise ValueError("65 is odd")
    Traceback (most recent call last):
        ...
    aliasfix.errors.AliasfixError: the model does not run: ValueError: 65 is odd; give another size
    """
    try:
        yield
    except AliasfixError:
        raise
    except Exception as error:
        raise AliasfixError(f"{what}: {one_line(error)}{f'; {hint}' if hint else ''}") from error


class NoEffectWarning(UserWarning):
    """No operation of the model is converted."""


class LatticeWarning(UserWarning):
    """An even filter shifts a branch by half a sample relative to another branch that it meets."""


class DoubtWarning(UserWarning):
    """A network seems not to see images as it was trained to: nothing can be concluded from what it says of them."""
