"""What a metric is, and where metrics are found."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from torch import Tensor

from aliasfix import extension
from aliasfix.errors import AliasfixError

if TYPE_CHECKING:
    from aliasfix.comparison.result import Comparison
    from aliasfix.measure.drawing import Drawing, Table
    from aliasfix.measure.subject import Subject

GROUP = "aliasfix.metrics"
"""The entry points by which another package registers a metric."""

Need: TypeAlias = Literal[
    "logits", "maps", "labels", "margin", "sites", "layers", "classes", "values",
    "label map", "dense", "boxes", "keypoints", "pitch",
]  # fmt: skip
Better: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """One row of a comparison: how to measure it, which inputs it requires, and how to show it.

    Args:
        name: the key in JSON and in ``metrics=``.
        title: the caption of the row: what is measured.
        better: ``"higher"`` or ``"lower"``.
        measure: returns one value for each image, (I,), given a network with its images.
        needs: the inputs it requires. A kind of output, see `aliasfix.families.Kind`; ``"maps"``, one tensor
            (B, C, h, w) whatever its kind, that may be scores of ``"classes"`` or ``"values"``; ``"labels"``;
            ``"margin"``, images larger than the model's input; ``"sites"``, a plan with sampling sites; ``"layers"``,
            modules before or after the sites that both networks have. Without the last two the row says so; without
            another a comparison has no such row.
        share: whether the value is in [0, 1] and printed as a percentage.
        unit: printed after a value that is no share.
        relative: whether it compares a network with the first one, so that a difference is neither better nor worse.
        optional: whether it is measured only when it is asked for by name.
        light: whether `aliasfix.compare_filters` measures it with every filter, not only with the one in detail.
        order: rows and figures are sorted by it, then by name.
        figures: yields the figures that the comparison has data for.
        table: returns a table for the page, or None if the comparison has no data for it.
    """

    name: str
    title: str
    better: Better
    measure: Callable[[Subject], Tensor]
    needs: tuple[Need, ...] = ()
    share: bool = True
    unit: str = ""
    relative: bool = False
    optional: bool = False
    light: bool = False
    order: int = 1000
    figures: Callable[[Comparison], Iterable[Drawing]] | None = None
    table: Callable[[Comparison], Table | None] | None = None

    def __post_init__(self) -> None:
        if self.better not in get_args(Better):
            raise AliasfixError(f"metric {self.name}: better is 'higher' or 'lower', not {self.better!r}")
        if unknown := [need for need in self.needs if need not in get_args(Need)]:
            raise AliasfixError(f"metric {self.name}: no input {unknown[0]!r}; needs= has {', '.join(get_args(Need))}")

    def number(self, value: float, signed: bool = False) -> str:
        """Format a value: a share in per cent, a difference of shares in points.

        >>> consistency = metrics()["consistency"]
        >>> consistency.number(0.915), consistency.number(0.015, signed=True)
        ('91.5%', '+1.5')
        """
        sign = "+" if signed else ""
        if not self.share:
            return f"{value:{sign}.3g}{self.unit}"
        return f"{100 * value:{sign}.1f}" if signed else f"{100 * value:.1f}%"


@functools.cache
def metrics() -> Mapping[str, Metric]:
    """Return every metric by name, in the order of the rows.

    Found are the `Metric` objects in the files of ``aliasfix/measure/`` and those that installed packages register as
    entry points of the group ``aliasfix.metrics``.

    Raises:
        AliasfixError: an entry point is no metric or cannot be loaded, or two metrics have one name.

    >>> list(metrics())[:3]
    ['consistency', 'change', 'variation']
    """
    found: dict[str, Metric] = {}
    for metric in (*_own(), *_registered()):
        if found.setdefault(metric.name, metric) is not metric:
            raise AliasfixError(f"two metrics are named {metric.name}: rename one, or uninstall its package")
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))


def _own() -> Iterable[Metric]:
    for module in extension.modules("aliasfix.measure"):
        yield from (value for value in vars(module).values() if isinstance(value, Metric))


def _registered() -> Iterable[Metric]:
    for whose, metric in extension.registered(GROUP, "the metric"):
        if not isinstance(metric, Metric):
            raise AliasfixError(f"{whose} is a {type(metric).__name__}: make it an aliasfix.measure.Metric")
        yield metric
