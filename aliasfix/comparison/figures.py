"""The figures of a comparison: those of its metrics, and of a sweep of filters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aliasfix.comparison.filter_sweep import FilterSweep
from aliasfix.comparison.result import Comparison
from aliasfix.errors import AliasfixError
from aliasfix.measure.drawing import ONE, TWO, Drawing, Panel, new_figure
from aliasfix.measure.metric import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawings(found: Comparison, sweep: FilterSweep | None = None) -> list[Drawing]:
    """All figures that a comparison has the measurements for.

    Raises:
        AliasfixError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise AliasfixError('figures need matplotlib, which is not installed: pip install "aliasfix[report]"') from None
    return list(_drawings(found, sweep))


def write(found: Comparison, folder: Path, sweep: FilterSweep | None = None) -> list[Path]:
    """Write every panel of every figure into a folder, as SVG and PNG.

    Raises:
        AliasfixError: the folder cannot be made or written, or matplotlib is not installed.
    """
    figures = drawings(found, sweep)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AliasfixError(f"{folder} cannot be made: {error.strerror}") from error
    return [path for figure in figures for panel in figure.panels for path in panel.write(folder)]


def _drawings(found: Comparison, sweep: FilterSweep | None) -> Iterator[Drawing]:
    for metric in metrics().values():
        if metric.figures is not None:
            yield from metric.figures(found)
    if sweep is not None and all(row.consistency is not None for row in sweep.rows):
        yield Drawing(
            "filters",
            "Consistency against agreement, over filters",
            "As converted, not retrained; further up is steadier, further right is closer to the original."
            if sweep.original.accuracy is None
            else "As converted, not retrained; further up is steadier, further right more accurate.",
            (Panel("filters", "consistency over filters", partial(_filters, sweep)),),
        )


def _filters(sweep: FilterSweep) -> Figure:
    figure = new_figure(4.2, 2.9)
    axis = figure.add_subplot()
    accurate = sweep.original.accuracy is not None
    for row in (sweep.original, *sweep.rows):
        across = row.accuracy if accurate else row.agreement
        if across is None or row.consistency is None:
            continue
        colour = ONE if row is sweep.original else TWO
        axis.plot(
            100 * across, 100 * row.consistency, "o", color=colour, markersize=9 if row.filter == sweep.taken else 6
        )
        axis.annotate(
            row.filter, (100 * across, 100 * row.consistency), xytext=(0, 7), textcoords="offset points", ha="center"
        )
    axis.margins(0.15, 0.2)
    axis.set_xlabel("accuracy, %" if accurate else "agreement with the original, %")
    axis.set_ylabel("consistency, %")
    return figure
