"""Half-band designs of m taps, which are used as written at any stride.

``window-m`` is the sinc under a Hamming window (the window method). ``lsq-m`` is the least-squares approximation of the
ideal response, which is the sinc cut off. Both stand for the filters of the first version of Zhang's paper (OpenReview
SklVEnR5K7), whose exact taps were not published.
"""

import math

from .family import Family

_DESIGNS = {"window3": (3, 0.54), "window6": (6, 0.54), "window7": (7, 0.54), "lsq3": (3, 1.0), "lsq7": (7, 1.0)}


def _taps(name: str, stride: int) -> list[float]:
    """The half-band sinc under a raised cosine; a pedestal of 1 is no window."""
    length, pedestal = _DESIGNS[name]
    row = []
    for n in range(length):
        t = n - (length - 1) / 2
        ideal = math.sin(math.pi * t / 2) / (math.pi * t) if t else 0.5
        row.append(ideal * (pedestal - (1 - pedestal) * math.cos(2 * math.pi * n / (length - 1))))
    return row


FAMILY = Family(tuple(_DESIGNS), _taps)
