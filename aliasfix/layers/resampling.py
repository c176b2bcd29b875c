"""The specification of an inserted layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resampling:
    """A low-pass filter for a sampling rate, and its own stride.

    Args:
        rate: per spatial axis, the sampling rate for which the filter is designed.
        stride: per spatial axis, the stride of the layer.
        axes: the spatial axes counted from the end. Default: the last ones.
    """

    rate: tuple[int, ...]
    stride: tuple[int, ...]
    axes: tuple[int, ...] = ()
