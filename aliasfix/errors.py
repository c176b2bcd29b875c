"""What a user can do wrong, and what is worth a warning."""

from collections.abc import Iterator
from contextlib import contextmanager

from .text.wording import one_line, printable


class AliasfixError(Exception):
    """A mistake the user can mend: one clear line that names the thing and what to try next."""

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
    """Nothing in the model samples in a way that the recipe converts."""


class LatticeWarning(UserWarning):
    """An even filter moved one branch of a merge by half a sample relative to the other."""
