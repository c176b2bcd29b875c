"""The low-pass filters, by name or by taps: one file a family.

A filter is separable: one row of taps for each axis, of sum 1.
"""

import math
from collections.abc import Sequence

from ..errors import AliasfixError
from .family import Family, families
from .ideal import IDEAL

__all__ = ["IDEAL", "Family", "Filter", "names", "parse", "taps", "work"]

Filter = str | tuple[float, ...]


def names() -> tuple[str, ...]:
    """Every filter name.

    >>> names()[:4]
    ('delta1', 'rect2', 'tri3', 'bin4')
    """
    return tuple(families())


def parse(filter: str | Sequence[float]) -> Filter:
    """A filter name, or explicit taps as a tuple of floats of sum 1.

    Raises:
        AliasfixError: an unknown name, or taps that are empty, not finite, or of sum 0.

    >>> parse([1, 2, 1])
    (0.25, 0.5, 0.25)
    """
    if isinstance(filter, str):
        if filter not in families():
            raise AliasfixError(f"unknown filter {filter!r}; choose one of {', '.join(names())}, or give taps")
        return filter
    try:
        given = tuple(float(tap) for tap in filter)
    except (TypeError, ValueError):
        raise AliasfixError(
            f"filter must be a name or a sequence of numbers, not {filter!r}; names: {', '.join(names())}"
        ) from None
    if not given or not all(map(math.isfinite, given)) or abs(sum(given)) < 1e-12:
        raise AliasfixError(f"the taps {given} are no low-pass filter: their sum must be finite and not 0")
    return tuple(tap / sum(given) for tap in given)


def taps(filter: str | Sequence[float], stride: int = 2) -> tuple[float, ...]:
    """The taps of ``filter`` along one axis sampled at ``stride``; they sum to 1.

    An axis that is not sampled (stride 1) is left alone. Explicit taps are used as they are at any stride above 1.

    Raises:
        AliasfixError: see `parse`; or ``ideal``, which has no taps.

    >>> taps("tri3")
    (0.25, 0.5, 0.25)
    >>> [round(16 * tap) for tap in taps("tri3", stride=4)]
    [1, 2, 3, 4, 3, 2, 1]
    >>> taps("bin5", stride=1)
    (1.0,)
    """
    filter = parse(filter)
    if stride == 1:
        return (1.0,)
    if not isinstance(filter, str):
        return filter
    row = families()[filter].taps(filter, stride)
    total = math.fsum(row)
    return tuple(tap / total for tap in row)


def work(filter: str | Sequence[float], stride: int = 2) -> int:
    """How many multiply-adds a sample costs along one axis: as many as there are taps.

    ``ideal`` counts as 5, about the share of an FFT of a few hundred samples, forth and back.

    >>> work("tri3"), work("ideal"), work("tri3", 1)
    (3, 5, 1)
    """
    if filter == IDEAL:
        return 1 if stride == 1 else 5
    return len(taps(filter, stride))
