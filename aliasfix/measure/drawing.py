"""Figures and tables of a metric. matplotlib draws the figures, as SVG for the page or as files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from aliasfix.files import saving
from aliasfix.measure.shifts import Shift, heat_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ONE, TWO = "#0a0b0c", "#c8553d", "#2f7fd1"
"""The colours of text and axes, of the first network, and of the second."""
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: small, so that a page can put several side by side or below one another.

    Args:
        name: of its file, and of its place in the page.
        alt: the text for readers who do not see it.
        draw: draws it.
        head: stands above it.
        picture: stands beside the head.
    """

    name: str
    alt: str
    draw: Callable[[], Figure]
    head: str = ""
    picture: Image.Image | None = None

    def svg(self) -> str:
        """Inline SVG whose ink is that of the text around it."""
        text = self._saved("svg", transparent=True).decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        for size in ("width", "height"):
            text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*pt"', r"\1", text, count=1)
        for before in (' id="', "url(#", 'href="#'):  # unique on the page
            text = text.replace(before, f"{before}{self.name}-")
        text = text.replace("<svg ", f'<svg role="img" aria-label="{_escaped(self.alt)}" ', 1)
        return text.replace(INK, "currentColor").replace("font-family: sans-serif", "font-family: inherit")

    def write(self, folder: Path) -> list[Path]:
        """``NAME.svg`` and ``NAME.png``, dark on white."""
        written = []
        for suffix in ("svg", "png"):
            path = folder / f"{self.name}.{suffix}"
            with saving.replacing(path) as temporary:
                temporary.write_bytes(self._saved(suffix, transparent=False))
            written.append(path)
        return written

    def _saved(self, suffix: str, transparent: bool) -> bytes:
        import matplotlib

        file = io.BytesIO()
        # ids are drawn from the salt: the same picture again is the same file
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            metadata: Any = {"Date": None} if suffix == "svg" else {"Software": None}
            self.draw().savefig(file, format=suffix, dpi=160, transparent=transparent, metadata=metadata)
        return file.getvalue()


@dataclass(frozen=True)
class Drawing:
    """A figure: what it shows, in a sentence or two, and its panels.

    Args:
        name: of its section in the page.
        title: its heading.
        caption: what it shows.
        panels: its pictures.
        legend: whether the page says which colour is which network's, because the panels do not.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page: heads, and rows of as many texts."""

    title: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def distribution(
    name: str, title: str, caption: str, values: tuple[Tensor, Tensor], names: tuple[str, str], label: str
) -> Drawing:
    """Draw the cumulative distribution over the images of one value an image, for both networks.

    Args:
        name, title, caption: see `Drawing`.
        values: (I,) of each network.
        names: of the networks.
        label: of the axis.
    """

    def draw() -> Figure:
        figure = new_figure(4.2, 2.6)
        axis = figure.add_subplot()
        for own, colour, called in zip(values, (ONE, TWO), names, strict=True):
            ordered = own.double().sort().values.tolist()
            shares = [100 * (n + 1) / len(ordered) for n in range(len(ordered))]
            axis.step([0, *ordered], [0, *shares], where="post", color=colour, linewidth=1.6, label=called)
        axis.set_xlim(0)
        axis.set_ylim(0, 103)
        axis.set_xlabel(label)
        axis.set_ylabel("% of images up to it")
        axis.legend(frameon=False)
        return figure

    return Drawing(name, title, caption, (Panel(name, f"distribution of {name}, {names[0]} and {names[1]}", draw),))


def maps(
    shifts: Sequence[Shift],
    values: tuple[Tensor, Tensor],
    titles: Sequence[str],
    ends: tuple[float, float],
    called: tuple[str, str],
) -> Figure:
    """Draw a value at each shift as two heat maps on one scale.

    Args:
        shifts: N shifts that fill a rectangle.
        values: (N,) of each network.
        titles: of the maps.
        ends: of the scale.
        called: the labels of its ends.
    """
    figure = new_figure(3.4, 2.1)
    pair = figure.subplots(1, 2)
    rows, columns = ([min(along), max(along)] for along in zip(*shifts, strict=True))
    edges = (columns[0] - 0.5, columns[1] + 0.5, rows[1] + 0.5, rows[0] - 0.5)
    for number, (axis, own, title) in enumerate(zip(pair, values, titles, strict=True)):
        cells = heat_map(shifts, own).tolist()
        image = axis.imshow(cells, vmin=ends[0], vmax=ends[1], cmap="inferno", extent=edges, interpolation="nearest")
        image.set_gid(f"map-{number}")  # matplotlib's id would be that of the same pixels elsewhere
        axis.set_title(title)
        axis.set_xticks(columns)
        axis.set_yticks(rows)
        axis.set_xlabel("Δw", labelpad=-6)
    pair[0].set_ylabel("Δh", labelpad=-4)
    bar = figure.colorbar(image, ax=list(pair), shrink=0.75, ticks=ends)
    bar.ax.set_yticklabels(called)
    bar.outline.set_edgecolor(INK)
    return figure


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
