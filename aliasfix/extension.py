"""What is found instead of listed: the files of a package, and what other packages register by entry points."""

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .errors import explaining


def modules(package: str) -> Iterator[ModuleType]:
    """Import the files of a package, in the order of their names.

    >>> [module.__name__ for module in modules("aliasfix.text")]
    ['aliasfix.text.printing', 'aliasfix.text.progress', 'aliasfix.text.wording']
    """
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        yield importlib.import_module(f"{package}.{info.name}")


def registered(group: str, what: str, make: Callable[[Any], Any] = lambda loaded: loaded) -> Iterator[tuple[str, Any]]:
    """Load what other packages register under a group of entry points.

    Args:
        group: of the entry points.
        what: is registered there, for messages.
        make: called with what was loaded.

    Yields:
        Words that name the entry point, and what ``make`` returns.

    Raises:
        AliasfixError: an entry point cannot be loaded; names its package.

    >>> list(registered("aliasfix.nothing", "the thing"))
    []
    """
    for entry in importlib.metadata.entry_points(group=group):
        whose = f"{what} {entry.name} of {entry.dist.name if entry.dist else 'a package'} ({entry.value})"
        with explaining(f"{whose} cannot be loaded", "uninstall the package"):
            found = make(entry.load())
        yield whose, found
