"""The layers that a conversion adds to a model, their functional forms, and how they are computed."""

from .blur import BlurPool, BlurUpsample

__all__ = ["BlurPool", "BlurUpsample"]
