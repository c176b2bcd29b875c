"""The formats of checkpoints, one file a format."""

from .format import Format, Stream, formats, of, writable

__all__ = ["Format", "Stream", "formats", "of", "writable"]
