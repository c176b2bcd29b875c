"""The changes that a conversion makes to a live model. Each type checks, applies and undoes itself."""

from .calls import BeginPass, BlurCall, DenseCall, InsertCall, ReplaceCall, SubstituteCall
from .edit import Edit, from_dict
from .hooks import BlurModule
from .stride import Restride

__all__ = [
    "BeginPass",
    "BlurCall",
    "BlurModule",
    "DenseCall",
    "Edit",
    "InsertCall",
    "ReplaceCall",
    "Restride",
    "SubstituteCall",
    "from_dict",
]
