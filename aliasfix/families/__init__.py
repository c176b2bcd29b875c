"""What models take and return, one file a family: no other file names a library's models."""

from .family import Family, Inputs, Kind, of
from .reading import Answer, Output, Returned, read

__all__ = ["Answer", "Family", "Inputs", "Kind", "Output", "Returned", "of", "read"]
