"""How much the probability of a class moves as the image is shifted."""

from torch import Tensor

from aliasfix.measure.sweep import Sweep


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
