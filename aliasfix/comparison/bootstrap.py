"""How certain a mean over images is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 5
"""Images below which resampling says nothing, and no interval is given."""
_AT_ONCE = 4_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Estimate:
    """A mean over images and the interval that holds it with the confidence asked for; none for few images."""

    mean: float
    low: float | None = None
    high: float | None = None


def paired(
    a: Tensor, b: Tensor, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Estimate, Estimate, Estimate]:
    """The means of two measurements of the same images and of their difference, by the paired bootstrap.

    Images are drawn with replacement, the same for both; the intervals are percentiles of the means. Images where
    either value is nan are left out.

    Args:
        a, b: (I,), one value an image.
        confidence: share of the resampled means inside the interval.
        resamples: how often I images are drawn.
        seed: of the drawing.

    Returns:
        Of a, of b, and of b − a; without intervals for fewer than `FEWEST` images.

    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).

    >>> a = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    >>> paired(a, a + 0.5)[2]
    Estimate(mean=0.5, low=0.5, high=0.5)
    """
    a, b = a.double(), b.double()
    known = ~(a.isnan() | b.isnan())
    a, b = a[known], b[known]
    series = torch.stack([a, b, b - a])
    means = series.mean(1).tolist()
    count = len(a)
    if count < FEWEST:
        return Estimate(means[0]), Estimate(means[1]), Estimate(means[2])
    random = torch.Generator().manual_seed(seed)
    drawn = []
    step = max(1, _AT_ONCE // count)
    for start in range(0, resamples, step):
        which = torch.randint(count, (min(step, resamples - start), count), generator=random)
        drawn.append(torch.stack([row[which].mean(1) for row in series]))
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    bounds = torch.quantile(torch.cat(drawn, 1), ends, dim=1).T.tolist()
    one, two, difference = (Estimate(mean, *ends) for mean, ends in zip(means, bounds, strict=True))
    return one, two, difference
