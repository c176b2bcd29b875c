"""How much the probability of a class moves as the image is shifted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from aliasfix.measure.drawing import ONE, TWO, Drawing, Panel, distribution, new_figure
from aliasfix.measure.metric import Metric
from aliasfix.measure.subject import along_diagonal
from aliasfix.measure.sweeping import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aliasfix.comparison.result import Comparison, Curve


def variation(sweep: Sweep) -> Tensor:
    """Standard deviation over shifts of the probability of the correct (without labels, predicted) class.

    √Var_{h,w} P_target(Shift_{h,w}(X)), over the N shifts of the sweep (divided by N, not N − 1). The paper's
    figure is the mean over images; the values themselves are its distribution.

    Returns:
        (I,), in [0, 0.5]; 0 is shift-invariant over these shifts.

    Source: Zhang 2019 (ICML), supplementary material, "Classification variation".

    >>> import torch
    >>> variation(Sweep(((0, 0), (0, 1)), torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]), torch.zeros(1)))
    tensor([0.2500])
    """
    return sweep.probability.std(1, correction=0)


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the curves of the images that move the first network most, and the distribution over all images."""
    one, two = found.names
    if found.curves:
        whose = "its label" if found.labelled else f"the class {one} gives it unshifted"
        yield Drawing(
            "shift",
            "Probability against a diagonal shift",
            f"For the images that move {one} most: the probability of {whose} as the image is shifted.",
            tuple(
                Panel(
                    f"shift-{n}",
                    f"{curve.image}: {one} and {two}",
                    partial(_curve, curve, found.names),
                    f"{curve.image}: {curve.called or f'class {curve.label}'}",
                    curve.picture,
                )
                for n, curve in enumerate(found.curves, 1)
            ),
            legend=True,
        )
    if found.variation is not None:
        yield distribution(
            "variation",
            "How much the probability varies",
            "Standard deviation over the diagonal shifts, of every image: steadier is further left.",
            found.variation,
            found.names,
            "variation of the probability",
        )


def _curve(curve: Curve, names: tuple[str, str]) -> Figure:
    figure = new_figure(3.4, 2)
    axis = figure.add_subplot()
    for values, colour, name in ((curve.a, ONE, names[0]), (curve.b, TWO, names[1])):
        axis.plot(curve.shifts, values, color=colour, linewidth=1.6, label=name)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("diagonal shift, pixels")
    axis.set_ylabel("probability")
    return figure


VARIATION = Metric(
    "variation",
    "variation of the class's probability along the diagonal",
    "lower",
    lambda subject: variation(subject.once(along_diagonal)),
    needs=("logits",),
    light=True,
    order=30,
    figures=figures,
)
