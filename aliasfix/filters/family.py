"""What a family of filters is, and where families are found."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import extension
from ..errors import AliasfixError

GROUP = "aliasfix.filters"  # the entry points by which other packages add families


@dataclass(frozen=True)
class Family:
    """Filters that are made alike.

    A family is the name ``FAMILY`` of a file in ``aliasfix/filters/``, or what an entry point of the group
    ``aliasfix.filters`` names.

    Args:
        names: of its filters.
        taps: the taps of a filter, by its name and the stride of the axis, which is above 1. They are scaled to sum 1.

    >>> Family(("box",), lambda name, stride: [1.0] * stride).taps("box", 3)
    [1.0, 1.0, 1.0]
    """

    names: tuple[str, ...]
    taps: Callable[[str, int], Sequence[float]]


@functools.cache
def families() -> dict[str, Family]:
    """The family of each filter name, in the order of the file names; those of other packages follow.

    Raises:
        AliasfixError: another package's family does not load, or uses a name that is taken.
    """
    found: dict[str, Family] = {}
    for module in extension.modules("aliasfix.filters"):
        family = getattr(module, "FAMILY", None)
        if family is not None:
            found |= dict.fromkeys(family.names, family)
    for whose, family in extension.registered(GROUP, "the filters"):
        if not isinstance(family, Family):
            raise AliasfixError(f"{whose} is a {type(family).__name__}: make it an aliasfix.filters.Family")
        if taken := sorted(set(family.names) & set(found)):
            raise AliasfixError(f"{whose} uses the name {taken[0]!r}, which is taken; uninstall the package")
        found |= dict.fromkeys(family.names, family)
    return found
