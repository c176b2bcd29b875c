"""The layers that a conversion inserts, their functional forms, and their implementations."""

from .blur import BlurPool, BlurUpsample

__all__ = ["BlurPool", "BlurUpsample"]
