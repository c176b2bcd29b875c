"""The specification of an inserted layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Resampling:
    """A low-pass filter for a sampling rate, and its own stride.

    Args:
        rate: per spatial axis, the sampling rate for which the filter is designed.
        stride: per spatial axis, the stride of the layer.
        axes: the spatial axes counted from the end. Default: the last ones.
        phase: empty, unless the phase adapts. Then the layer keeps one phase (``down``), rolls to the phase that the
            operation behind it keeps (``before``), or rolls back what an operation enlarged (``up``).
        sources: if the phase adapts, the axis of the model's input that each spatial axis comes from, counted from 0.
        fine, coarse: if the phase adapts, the total stride of the finer and of the coarser lattice along each axis.
    """

    rate: tuple[int, ...]
    stride: tuple[int, ...]
    axes: tuple[int, ...] = ()
    phase: str = ""
    sources: tuple[int, ...] = ()
    fine: tuple[float, ...] = ()
    coarse: tuple[float, ...] = ()
