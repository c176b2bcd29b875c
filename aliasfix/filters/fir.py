"""The low-pass filters, by name.

A filter is separable: one row of taps per axis, of gain 1. Two kinds of name exist:

- ``rect2``, ``tri3`` and ``bin4`` … ``bin7`` follow the stride s: ``bin-m`` is m-1 boxes of s taps
  convolved (``rect2`` is one box, ``tri3`` two), which at stride 2 are the rectangle, triangle and binomial
  filters of Zhang (ICML 2019, section 3), and at any stride put a zero of the response on every frequency
  that folds onto 0.
- All others, and explicit taps, are used as written at any stride: ``delta1`` (no blur), the wider rectangles
  and triangles, and half-band designs of length m: ``window-m`` is the sinc under a Hamming window (the window
  method), ``lsq-m`` the least-squares approximation of the ideal response, which is the sinc cut off. Both stand for
  the filters of the paper's first version (OpenReview SklVEnR5K7), whose exact taps were not published.
"""

import math
from collections.abc import Sequence

from ..errors import AliasfixError

Filter = str | tuple[float, ...]

_BOXES = {"rect2": 1, "tri3": 2, "bin4": 3, "bin5": 4, "bin6": 5, "bin7": 6}
_FIXED: dict[str, tuple[float, ...]] = {
    "delta1": (1,),
    "rect3": (1, 1, 1),
    "rect4": (1, 1, 1, 1),
    "rect5": (1, 1, 1, 1, 1),
    "rect6": (1, 1, 1, 1, 1, 1),
    "rect7": (1, 1, 1, 1, 1, 1, 1),
    "tri5": (1, 2, 3, 2, 1),
    "tri7": (1, 2, 3, 4, 3, 2, 1),
}
_HALF_BAND = {"window3": (3, 0.54), "window6": (6, 0.54), "window7": (7, 0.54), "lsq3": (3, 1.0), "lsq7": (7, 1.0)}


def names() -> tuple[str, ...]:
    """Every filter name.

    >>> names()[:4]
    ('delta1', 'rect2', 'tri3', 'bin4')
    """
    return ("delta1", *_BOXES, *(name for name in _FIXED if name != "delta1"), *_HALF_BAND)


def parse(filter: str | Sequence[float]) -> Filter:
    """A filter name, or explicit taps as a tuple of floats of sum 1.

    Raises:
        AliasfixError: an unknown name, or taps that are empty, not finite, or of sum 0.

    >>> parse([1, 2, 1])
    (0.25, 0.5, 0.25)
    """
    if isinstance(filter, str):
        if filter not in names():
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

    An axis that is not sampled (stride 1) is left alone.

    Raises:
        AliasfixError: see `parse`.

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
    if filter in _FIXED:
        return _normalised(_FIXED[filter])
    if filter in _HALF_BAND:
        return _half_band(*_HALF_BAND[filter])
    row: tuple[float, ...] = (1.0,)
    for _ in range(_BOXES[filter]):
        row = tuple(sum(row[max(0, i - stride + 1) : i + 1]) for i in range(len(row) + stride - 1))
    return _normalised(row)


def _normalised(row: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(row)
    return tuple(tap / total for tap in row)


def _half_band(length: int, pedestal: float) -> tuple[float, ...]:
    """The half-band sinc of ``length`` taps under a raised cosine; a pedestal of 1 is no window."""
    row = []
    for n in range(length):
        t = n - (length - 1) / 2
        ideal = math.sin(math.pi * t / 2) / (math.pi * t) if t else 0.5
        row.append(ideal * (pedestal - (1 - pedestal) * math.cos(2 * math.pi * n / (length - 1))))
    return _normalised(row)
