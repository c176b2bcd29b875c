"""The figures of a comparison, drawn by matplotlib: SVG that takes its colours from the page, or files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aliasfix.comparison.filter_sweep import FilterSweep
from aliasfix.comparison.result import Comparison, Curve, Layer, Positions
from aliasfix.errors import AliasfixError
from aliasfix.files import saving
from aliasfix.measure.shifts import heat_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ONE, TWO = "#0a0b0c", "#c8553d", "#2f7fd1"
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
    """One picture of a figure: small, so that a page can put them side by side or below one another."""

    name: str
    alt: str
    draw: Callable[[], Figure]

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
    """A figure: what it shows, in a sentence or two, and its panels."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


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
    one, two = found.names
    if found.curves:
        whose = "its label" if found.labelled else f"the class {one} gives it unshifted"
        yield Drawing(
            "shift",
            "Probability against a diagonal shift",
            f"For the images that move {one} most: the probability of {whose} as the image is shifted.",
            tuple(
                Panel(f"shift-{n}", f"{curve.image}: {one} and {two}", _bind(_curve, curve, found.names))
                for n, curve in enumerate(found.curves, 1)
            ),
        )
    if found.variation is not None:
        yield Drawing(
            "variation",
            "How much the probability varies",
            "Standard deviation over the diagonal shifts, of every image: steadier is further left.",
            (Panel("variation", f"distribution of variation, {one} and {two}", _bind(_distribution, found)),),
        )
    if found.grid is not None and found.diagonal is not None:
        yield Drawing(
            "positions",
            "Accuracy by position",
            f"Share of the images classified correctly at each shift, for {one} (left) and {two} (right), and along "
            "the diagonal. Steady is one colour, and a level line.",
            (
                Panel("positions-map", f"accuracy at each shift: {one} and {two}", _bind(_accuracies, found)),
                Panel("positions-diagonal", "accuracy along the diagonal", _bind(_along, found)),
            ),
        )
    if found.layers:
        yield Drawing(
            "features",
            "Features against the shift of the input",
            f"Cosine distance between shifted features and features of the shifted image, for {one} (left) and {two} "
            "(right), before and after each sampling site, in order. Dark: they move with the input. Bright: half the "
            "mean distance between two images.",
            tuple(
                Panel(f"features-{n}", f"{layer.name}: {one} and {two}", _bind(_maps, layer, found.names))
                for n, layer in enumerate(found.layers, 1)
            ),
        )
    if sweep is not None and all(row.consistency is not None for row in sweep.rows):
        yield Drawing(
            "filters",
            "Consistency against agreement, over filters",
            "As converted, not retrained; further up is steadier, further right is closer to the original."
            if sweep.original.accuracy is None
            else "As converted, not retrained; further up is steadier, further right more accurate.",
            (Panel("filters", "consistency over filters", _bind(_filters, sweep)),),
        )


def _bind(draw: Callable[..., Figure], *arguments: Any) -> Callable[[], Figure]:
    return lambda: draw(*arguments)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _curve(curve: Curve, names: tuple[str, str]) -> Figure:
    figure = _figure(3.4, 2)
    axis = figure.add_subplot()
    for values, colour, name in ((curve.a, ONE, names[0]), (curve.b, TWO, names[1])):
        axis.plot(curve.shifts, values, color=colour, linewidth=1.6, label=name)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("diagonal shift, pixels")
    axis.set_ylabel("probability")
    return figure


def _distribution(found: Comparison) -> Figure:
    assert found.variation is not None
    figure = _figure(4.2, 2.6)
    axis = figure.add_subplot()
    for values, colour, name in zip(found.variation, (ONE, TWO), found.names, strict=True):
        ordered = values.double().sort().values.tolist()
        shares = [100 * (n + 1) / len(ordered) for n in range(len(ordered))]
        axis.step([0, *ordered], [0, *shares], where="post", color=colour, linewidth=1.6, label=name)
    axis.set_xlim(0)
    axis.set_ylim(0, 103)
    axis.set_xlabel("variation of the probability")
    axis.set_ylabel("% of images up to it")
    axis.legend(frameon=False)
    return figure


def _maps(layer: Layer, names: tuple[str, str]) -> Figure:
    red = layer.scale if layer.scale == layer.scale and layer.scale > 0 else max(layer.a.max().item(), 1e-6)
    titles = [f"{name}: {values.mean():.3f}" for name, values in zip(names, (layer.a, layer.b), strict=True)]
    return _pair(layer, titles, (0, red), ("0", f"{red:.2g}"))


def _accuracies(found: Comparison) -> Figure:
    at = found.grid
    assert at is not None
    both = torch.cat([at.a, at.b])
    low, high = both.min().item(), both.max().item()
    titles = [f"{name}: {values.mean():.1%}" for name, values in zip(found.names, (at.a, at.b), strict=True)]
    return _pair(at, titles, (min(low, high - 1e-3), high), (f"{low:.1%}", f"{high:.1%}"))


def _pair(of: Layer | Positions, titles: Sequence[str], ends: tuple[float, float], called: tuple[str, str]) -> Figure:
    """A value at each shift as two heat maps on one scale."""
    figure = _figure(3.4, 2.1)
    pair = figure.subplots(1, 2)
    rows, columns = ([min(along), max(along)] for along in zip(*of.shifts, strict=True))
    edges = (columns[0] - 0.5, columns[1] + 0.5, rows[1] + 0.5, rows[0] - 0.5)
    for number, (axis, values, title) in enumerate(zip(pair, (of.a, of.b), titles, strict=True)):
        cells = heat_map(of.shifts, values).tolist()
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


def _along(found: Comparison) -> Figure:
    at = found.diagonal
    assert at is not None
    figure = _figure(3.4, 2.1)
    axis = figure.add_subplot()
    for values, colour, name in ((at.a, ONE, found.names[0]), (at.b, TWO, found.names[1])):
        axis.plot([dh for dh, _ in at.shifts], (100 * values).tolist(), color=colour, linewidth=1.6, label=name)
    axis.set_xlabel("diagonal shift, pixels")
    axis.set_ylabel("accuracy, %")
    axis.legend(frameon=False)
    return figure


def _filters(sweep: FilterSweep) -> Figure:
    figure = _figure(4.2, 2.9)
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


def picture(curve: Curve) -> str:
    """A small picture of the image as a data URI."""
    if curve.picture is None:
        return ""
    file = io.BytesIO()
    curve.picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
