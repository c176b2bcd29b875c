"""Carry out a plan on a live model, and take it back."""

from .operation import apply, executed, note_calibration, undo

__all__ = ["apply", "executed", "note_calibration", "undo"]
