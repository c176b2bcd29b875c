"""What is left of the accuracy when an adversary picks the shift."""

from dataclasses import replace

from torch import Tensor

from aliasfix.measure import positions
from aliasfix.measure.metric import Metric
from aliasfix.measure.shifts import grid
from aliasfix.measure.subject import Subject
from aliasfix.measure.sweeping import Sweep


def withstands(sweep: Sweep) -> Tensor:
    """Whether each image is classified correctly at every shift; without labels, as the unshifted image is.

    The mean over images is the adversarial accuracy (without labels, the adversarial consistency). The shifts
    of the sweep are the adversary's: `grid(m)` for whole pixels within ±m, `grid(m, 0.5)` for half pixels, a
    smaller step for a fractional grid; circular, or with `size=` the shifts of a camera.

    Returns:
        (I,) bool.

    Source: Michaeli et al. 2023 (CVPR), "Alias-Free Convnets", robustness to adversarial translations.

    >>> import torch
    >>> target = torch.tensor([1, 2])
    >>> withstands(Sweep(((0, 0), (0, 1)), torch.tensor([[1, 1], [2, 0]]), torch.ones(2, 2), target))
    tensor([ True, False])
    """
    return (sweep.top1 == sweep.target[:, None]).all(1)


def within_reach(subject: Subject) -> Sweep:
    """Classify every image at the whole shifts that the adversary may pick."""
    reach, margin = subject.setting.reach, subject.views.margin
    every = grid(min(reach, margin // 2) if margin else reach)
    return subject.sweep([shift for shift in every if subject.views.axes > 1 or shift[0] == 0])


def _one_class(subject: Subject) -> Tensor:
    swept = subject.once(within_reach)
    if not subject.views.labelled:  # an image withstands if its own class stays, whatever the first network says
        swept = replace(swept, target=swept.top1[:, swept.shifts.index((0.0, 0.0))])
    return withstands(swept).float()


WITHSTANDS = Metric(
    "withstands",
    "one class at every shift an adversary may pick",
    "higher",
    _one_class,
    needs=("logits",),
    order=40,
    figures=positions.figures,
)
