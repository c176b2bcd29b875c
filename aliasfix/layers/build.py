"""Build the layer for a recipe."""

from typing import TypeGuard

from torch import nn

from .. import filters
from ..recipe import Recipe
from .blur import BlurPool, BlurUpsample
from .ideal import IdealPool, IdealUpsample
from .ladder import Passes
from .nonlinear import Filtered, Polynomial, Product
from .norm import AliasFreeNorm
from .padding import Borders
from .phase import AdaptiveBlur
from .resampling import Resampling
from .substitution import Substitution


def build(recipe: Recipe, layer: Resampling | Substitution, enlarges: bool, passes: Passes) -> nn.Module:
    """Build the layer of a specification.

    Args:
        recipe: the options.
        layer: what the layer does. A resampling whose phase adapts is an `AdaptiveBlur`, another a `BlurPool`.
        enlarges: whether the layer samples up, as `BlurUpsample` does.
        passes: of the model.
    """
    if isinstance(layer, Substitution):
        return _in_place(recipe, layer)
    if layer.phase:
        return AdaptiveBlur(recipe.filter, recipe.padding, layer, recipe.phase_norm, passes)
    if recipe.filter == filters.IDEAL:
        ideal = IdealUpsample if enlarges else IdealPool
        return ideal(layer.rate, layer.stride, recipe.padding, layer.axes)
    kind = BlurUpsample if enlarges else BlurPool
    return kind(recipe.filter, layer.rate, layer.stride, recipe.padding, layer.axes)


def _in_place(recipe: Recipe, layer: Substitution) -> nn.Module:
    if layer.kind == "norm":
        return AliasFreeNorm(layer.axes)
    if layer.kind == "average":
        return Borders(recipe.padding)
    if layer.kind == "polynomial":
        return Polynomial(layer.axes, layer.channel, layer.channels, layer.start)
    kind = Product if layer.kind == "product" else Filtered
    filter = filters.IDEAL if recipe.activation == "polynomial" else recipe.filter
    return kind(filter, layer.axes, recipe.oversampling, recipe.padding)


def is_inserted_layer(module: nn.Module) -> bool:
    """Whether a module is one of the layers that `build` makes and that sample."""
    return isinstance(module, BlurPool | Filtered)


def is_low_pass_layer(module: nn.Module) -> TypeGuard[BlurPool]:
    """Whether a module is one of the low-pass layers that `build` makes."""
    return isinstance(module, BlurPool)
