"""The specification of a layer that takes the place of an operation which does not sample."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Substitution:
    """A layer in the place of a nonlinearity, a norm or a pool.

    Args:
        kind: ``filtered``, ``polynomial``, ``product``, ``norm`` or ``average``.
        axes: the spatial axes, counted from the end.
        channel: the axis of the channels, counted from the end.
        start: of a polynomial: its coefficients a₀, a₁ and a₂ before any fit; else empty.
        channels: of a polynomial: how many channels have coefficients of their own.
        number: of a polynomial: which call of its module it is, since every call has coefficients of its own.
    """

    kind: str
    axes: tuple[int, ...]
    channel: int = -1
    start: tuple[float, ...] = ()
    channels: int = 0
    number: int = 0
