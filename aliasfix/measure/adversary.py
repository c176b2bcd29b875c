"""What is left of the accuracy when an adversary picks the shift."""

from torch import Tensor

from aliasfix.measure.sweep import Sweep


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
