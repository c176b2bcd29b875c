"""How far the pitch moves that a tracker hears, as the sound is shifted."""

from __future__ import annotations

import torch
from torch import Tensor

from aliasfix.measure.metric import Metric
from aliasfix.measure.subject import Subject
from aliasfix.measure.windows import Pair, agreement

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


def _apart(pair: Pair) -> float:
    one, other = (answer.tensor[pair.index][None] for answer in pair.answers)
    return cents_apart(one, other).item()


def movement(subject: Subject) -> Tensor:
    """(I,): the mean of how many cents the pitches of two shifted windows on a sound are apart, of a steady sound."""
    return agreement(subject, "pitch", _apart)


def same_pitch(subject: Subject) -> Tensor:
    """(I,), in [0, 1]: the share of pairs of shifted windows whose pitches are within half a semitone."""
    return agreement(subject, "pitch", lambda pair: float(_apart(pair) <= CLOSE))


PITCH = Metric(
    "pitch",
    "pitch moves between two shifted windows",
    "lower",
    movement,
    needs=("pitch",),
    share=False,
    unit=" cents",
    light=True,
    order=94,
)
SAME_PITCH = Metric(
    "same_pitch",
    "pitch of two shifted windows within half a semitone",
    "higher",
    same_pitch,
    needs=("pitch",),
    light=True,
    order=95,
)
