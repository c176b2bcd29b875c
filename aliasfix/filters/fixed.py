"""Wider rectangles and triangles, which are used as written at any stride (Zhang, ICML 2019, section 3)."""

from .family import Family

_TAPS: dict[str, tuple[float, ...]] = {
    "rect3": (1, 1, 1),
    "rect4": (1, 1, 1, 1),
    "rect5": (1, 1, 1, 1, 1),
    "rect6": (1, 1, 1, 1, 1, 1),
    "rect7": (1, 1, 1, 1, 1, 1, 1),
    "tri5": (1, 2, 3, 2, 1),
    "tri7": (1, 2, 3, 4, 3, 2, 1),
}

FAMILY = Family(tuple(_TAPS), lambda name, stride: _TAPS[name])
