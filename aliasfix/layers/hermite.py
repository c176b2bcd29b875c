"""Polynomials of degree 2 that are closest to a function of a normal variable."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def project(function: Callable[[Tensor], Any], mean: float = 0.0, deviation: float = 1.0) -> tuple[float, ...]:
    """Return a₀, a₁ and a₂ of the parabola that is closest to a function of x ~ N(mean, deviation²).

    It is the projection on the Hermite polynomials of degrees 0 to 2, on a grid over 12 deviations to both sides.

    >>> [round(a, 4) for a in project(torch.relu)]
    [0.1995, 0.5, 0.1995]
    """
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    w = torch.softmax(-z * z / 2, 0)
    values = function(mean + deviation * z)
    h0, h1, h2 = ((w * values * basis).sum().item() for basis in (torch.ones_like(z), z, (z * z - 1) / 2))
    # h0 + h1 z + h2 (z² − 1) with z = (x − mean) / deviation
    a2 = h2 / deviation**2
    a1 = h1 / deviation - 2 * a2 * mean
    return h0 - h2 - h1 * mean / deviation + a2 * mean**2, a1, a2
