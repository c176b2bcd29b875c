"""Accuracy as a function of where the image was shifted to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aliasfix.measure.drawing import ONE, TWO, Drawing, Panel, maps, new_figure
from aliasfix.measure.sweeping import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aliasfix.comparison.result import Comparison, Positions


def accuracy_by_position(sweep: Sweep) -> Tensor:
    """Share of the images classified correctly at each shift; without labels, as the unshifted image is.

    `heat_map(sweep.shifts, accuracy_by_position(sweep))` lays a grid out as a map, and `.diagonal()` of that
    is dh = dw.

    Returns:
        (N,), in [0, 1]; a constant is what a shift-invariant model gives.

    Source: Zhang 2019 (ICML), supplementary material (accuracy by position: heat map and diagonal).

    >>> import torch
    >>> top1, target = torch.tensor([[1, 1], [2, 0]]), torch.tensor([1, 2])
    >>> accuracy_by_position(Sweep(((0, 0), (0, 1)), top1, torch.ones(2, 2), target))
    tensor([1.0000, 0.5000])
    """
    return (sweep.top1 == sweep.target[:, None]).float().mean(0)


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the accuracy at each shift that an adversary may pick, and along the diagonal; with labels."""
    one, two = found.names
    if found.grid is not None and found.diagonal is not None:
        yield Drawing(
            "positions",
            "Accuracy by position",
            f"Share of the images classified correctly at each shift, for {one} (left) and {two} (right), and along "
            "the diagonal. Steady is one colour, and a level line.",
            (
                Panel(
                    "positions-map",
                    f"accuracy at each shift: {one} and {two}",
                    partial(_accuracies, found.grid, found.names),
                ),
                Panel(
                    "positions-diagonal",
                    "accuracy along the diagonal",
                    partial(_along, found.diagonal, found.names),
                ),
            ),
        )


def _accuracies(at: Positions, names: tuple[str, str]) -> Figure:
    both = torch.cat([at.a, at.b])
    low, high = both.min().item(), both.max().item()
    titles = [f"{name}: {values.mean():.1%}" for name, values in zip(names, (at.a, at.b), strict=True)]
    return maps(at.shifts, (at.a, at.b), titles, (min(low, high - 1e-3), high), (f"{low:.1%}", f"{high:.1%}"))


def _along(at: Positions, names: tuple[str, str]) -> Figure:
    figure = new_figure(3.4, 2.1)
    axis = figure.add_subplot()
    for values, colour, name in ((at.a, ONE, names[0]), (at.b, TWO, names[1])):
        axis.plot([dh for dh, _ in at.shifts], (100 * values).tolist(), color=colour, linewidth=1.6, label=name)
    axis.set_xlabel("diagonal shift, pixels")
    axis.set_ylabel("accuracy, %")
    axis.legend(frameon=False)
    return figure
