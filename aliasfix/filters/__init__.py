"""The low-pass filters: one file a family."""

from .fir import names, parse, taps

__all__ = ["names", "parse", "taps"]
