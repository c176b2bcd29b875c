"""How far the pitch moves that a tracker hears, as the sound is shifted."""

from __future__ import annotations

import torch
from torch import Tensor

BIN, CLOSE = 20, 50
"""Cents between two pitches of the output, and cents within which two are the same: half a semitone."""
_AROUND = 4  # bins on each side of the strongest that count


def cents(salience: Tensor) -> Tensor:
    """The pitch (B,) in cents above the first bin's: the mean of the bins around the strongest, weighted by salience.

    Args:
        salience: (B, bins), 0 or more, of pitches 20 cents apart.

    Source: Kim et al., "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018, equation 2, with the
    weights of its code.

    >>> cents(torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    tensor([50.])
    """
    bins = torch.arange(salience.shape[1], device=salience.device)
    near = (bins - salience.argmax(1, keepdim=True)).abs() <= _AROUND
    weights = salience.clamp_min(0) * near
    return BIN * (weights * bins).sum(1) / weights.sum(1).clamp_min(1e-12)


def cents_apart(one: Tensor, other: Tensor) -> Tensor:
    """(B,): how many cents two saliences (B, bins) of the same sounds are apart."""
    return (cents(one) - cents(other)).abs()
