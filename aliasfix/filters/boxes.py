"""Boxes as long as the stride, convolved: ``delta1``, ``rect2``, ``tri3`` and ``bin4`` to ``bin7``.

``bin-m`` is m-1 boxes of s taps at stride s; ``delta1`` is none, ``rect2`` one, ``tri3`` two. At stride 2 they are
the rectangle, triangle and binomial filters of Zhang (ICML 2019, section 3). At any stride a box puts a zero of the
response on every frequency that folds onto 0.
"""

from .family import Family

_BOXES = {"delta1": 0, "rect2": 1, "tri3": 2, "bin4": 3, "bin5": 4, "bin6": 5, "bin7": 6}


def _taps(name: str, stride: int) -> tuple[float, ...]:
    row: tuple[float, ...] = (1.0,)
    for _ in range(_BOXES[name]):
        row = tuple(sum(row[max(0, i - stride + 1) : i + 1]) for i in range(len(row) + stride - 1))
    return row


FAMILY = Family(tuple(_BOXES), _taps)
