"""Give a converted network its accuracy back without labels and without gradients."""

from .calibration import calibrate
from .result import Calibration

__all__ = ["Calibration", "calibrate"]
