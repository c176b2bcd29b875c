"""Build the layer for a recipe."""

from typing import TypeGuard

from torch import nn

from ..recipe import Recipe
from .blur import BlurPool, BlurUpsample
from .ladder import Passes
from .phase import AdaptiveBlur
from .resampling import Resampling


def build(recipe: Recipe, resampling: Resampling, enlarges: bool, passes: Passes) -> nn.Module:
    """Build the layer for a resampling.

    Args:
        recipe: the options.
        resampling: what the layer does. If its phase adapts, it is an `AdaptiveBlur`, else a `BlurPool`.
        enlarges: whether the layer samples up, as `BlurUpsample` does.
        passes: of the model.
    """
    if resampling.phase:
        return AdaptiveBlur(recipe.filter, recipe.padding, resampling, recipe.phase_norm, passes)
    layer = BlurUpsample if enlarges else BlurPool
    return layer(recipe.filter, resampling.rate, resampling.stride, recipe.padding, resampling.axes)


def is_low_pass_layer(module: nn.Module) -> TypeGuard[BlurPool]:
    """Whether a module is one of the layers that `build` makes."""
    return isinstance(module, BlurPool)
