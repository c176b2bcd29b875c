"""Build the layer for a recipe."""

from typing import TypeGuard

from torch import nn

from ..recipe import Recipe
from .blur import BlurPool, BlurUpsample
from .resampling import Resampling


def build(recipe: Recipe, resampling: Resampling, enlarges: bool = False) -> nn.Module:
    """Build the layer for a resampling: a `BlurPool`, or, if it ``enlarges``, a `BlurUpsample`."""
    layer = BlurUpsample if enlarges else BlurPool
    return layer(recipe.filter, resampling.rate, resampling.stride, recipe.padding, resampling.axes)


def is_low_pass_layer(module: nn.Module) -> TypeGuard[BlurPool]:
    """Whether a module is one of the layers that `build` makes."""
    return isinstance(module, BlurPool)
