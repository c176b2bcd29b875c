"""Sincs under a Kaiser window: ``kaiser``.

A filter of stride s has 6 s taps and one more in the middle, which keeps the lattice: 13 taps at stride 2. The cutoff
is the new Nyquist frequency, 1/(2 s) cycles per sample. The window is that of BigVGAN: of the attenuation that Kaiser's
formula gives half as many taps for a transition of half-width 0.6/s.

Sources: Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021, appendix C.1; Lee et al., "BigVGAN:
A Universal Neural Vocoder with Large-Scale Training", ICLR 2023.
"""

import math

from .family import Family


def design(count: int, cutoff: float, attenuation: float) -> tuple[float, ...]:
    """Return ``count`` taps of sum 1.

    Args:
        count: the number of taps.
        cutoff: the frequency at which half of the amplitude passes, in cycles per sample.
        attenuation: of the frequencies above the transition, in decibels.

    >>> [round(tap, 4) for tap in design(5, 0.25, 30.0)]
    [0.0, 0.2556, 0.4887, 0.2556, 0.0]
    """
    beta, middle = _beta(attenuation), (count - 1) / 2
    row = []
    for place in range(count):
        t = place - middle
        window = _bessel(beta * math.sqrt(max(0.0, 1 - (t / middle) ** 2))) if middle else 1.0
        angle = 2 * math.pi * cutoff * t
        row.append(window * (math.sin(angle) / angle if t else 1.0))
    return tuple(tap / math.fsum(row) for tap in row)


def attenuation(count: int, half_width: float) -> float:
    """Return the attenuation in decibels that ``count`` taps reach outside of a transition (Kaiser 1974).

    Args:
        count: the number of taps.
        half_width: half the width of the transition, in cycles per sample.

    >>> round(attenuation(12, 0.1036), 1)
    40.7
    """
    return 2.285 * (count - 1) * math.pi * 4 * half_width + 7.95


def taps(count: int, stride: int) -> tuple[float, ...]:
    """Return ``count`` taps for a stride, as BigVGAN designs them."""
    return design(count, 0.5 / stride, attenuation(count // 2, 0.6 / stride))


def _beta(attenuation: float) -> float:
    """Return the parameter of the window for an attenuation in decibels (Kaiser 1974)."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation >= 21 else 0.0


def _bessel(x: float) -> float:
    """Return the modified Bessel function of order 0, by its series.

    >>> round(_bessel(1.0), 6)
    1.266066
    """
    total, term, k = 1.0, 1.0, 1
    while term > 1e-17 * total:
        term *= (x / (2 * k)) ** 2
        total, k = total + term, k + 1
    return total


FAMILY = Family(("kaiser",), lambda name, stride: taps(6 * stride + 1, stride))
