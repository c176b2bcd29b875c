"""The layers that a conversion inserts, their functional forms, and their implementations."""

from .blur import BlurPool, BlurUpsample
from .ideal import IdealPool, IdealUpsample

__all__ = ["BlurPool", "BlurUpsample", "IdealPool", "IdealUpsample"]
