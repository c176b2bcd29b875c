"""What a user can do wrong, and what is worth a warning."""

from .text.wording import printable


class AliasfixError(Exception):
    """A mistake the user can mend: one clear line that names the thing and what to try next."""

    def __str__(self) -> str:
        return printable(super().__str__())


class NoEffectWarning(UserWarning):
    """Nothing in the model samples in a way that the recipe converts."""


class LatticeWarning(UserWarning):
    """An even filter moved one branch of a merge by half a sample relative to the other."""


class DoubtWarning(UserWarning):
    """A network seems not to see images as it was trained to: nothing can be concluded from what it says of them."""
