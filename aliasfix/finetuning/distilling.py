"""The distance between two distributions over classes that distillation lowers."""

from torch import Tensor
from torch.nn import functional as F


def distillation(logits: Tensor, original: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(original ‖ model) of the class probabilities at a temperature: (B, …) of two logits (B, classes, …).

    The hotter, the more what is said of unlikely classes counts; far above the logits it is their squared difference.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> distillation(logits, logits + 3)
    tensor([0.])
    """
    found, wanted = ((each / temperature).log_softmax(1) for each in (logits, original))
    return temperature**2 * F.kl_div(found, wanted, reduction="none", log_target=True).sum(1)


def consistency(one: Tensor, other: Tensor) -> Tensor:
    """The mean of both KL divergences between what a model says at two shifts: (B,) of two logits (B, classes).

    >>> import torch
    >>> consistency(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])) > 0
    tensor([True])
    """
    return (distillation(one, other) + distillation(other, one)) / 2
