"""What an inserted layer is for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resampling:
    """A low-pass made for sampling at ``rate`` that itself keeps every ``stride``-th sample, both per spatial axis.

    ``axes`` are the spatial axes counted from the end; the last ones if empty.
    """

    rate: tuple[int, ...]
    stride: tuple[int, ...]
    axes: tuple[int, ...] = ()
