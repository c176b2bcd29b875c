"""Accuracy as a function of where the image was shifted to."""

from torch import Tensor

from aliasfix.measure.sweep import Sweep


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
