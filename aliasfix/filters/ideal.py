"""The ideal low-pass: ``ideal``.

It keeps the frequencies below half the new sampling rate as they are, and drops all others, the new Nyquist frequency
included. It has no taps: every output sample depends on the whole map, which is taken as one period. The layer is
`aliasfix.layers.IdealPool`.

Source: Michaeli et al., "Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations", CVPR 2023.
"""

from collections.abc import Sequence

from ..errors import AliasfixError
from .family import Family

IDEAL = "ideal"


def _none(name: str, stride: int) -> Sequence[float]:
    raise AliasfixError("the filter 'ideal' has no taps: use aliasfix.layers.IdealPool, or a filter that has taps")


FAMILY = Family((IDEAL,), _none)
