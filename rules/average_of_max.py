"""Max pooling at stride 1, in the place of which averages are taken.

    Max_k   →   Box_k     (pool="average")

A maximum is not linear, and no low-pass makes it alias-free. The average of the same window is linear. Max pools that
sample are replaced by their own rule.

Shapes: unchanged.

Weights: none.

Source: Michaeli et al., "Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations", CVPR 2023.
"""

from typing import Any

from torch import nn

from aliasfix.layers.substitution import Substitution
from aliasfix.planning.rule import Arguments, Case, Function, Pool, Site
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

from .max_pool import MaxPool, average, averages


class AverageOfMax(Pool):
    """``max_pool1d/2d/3d`` of stride 1."""

    purpose = "pooling"
    signatures = MaxPool.signatures
    modules = MaxPool.modules
    options = {"pool": "average"}

    def acts(self, recipe: Recipe) -> bool:
        """Whether the recipe asks for averages."""
        return recipe.pool == "average"

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a max pool of stride 1."""
        _, stride, _ = self.window(call.name, call.arguments)
        if max(stride) > 1 or not call.variable:
            return None
        reason = None
        if not averages(call.name, call.arguments):
            reason = "Its windows have gaps, or it returns indices: an average has none."
        return Site((), reason=reason)

    def inserts(self, call: Operation, trace: Trace, recipe: Recipe) -> Substitution:
        """Return a layer that knows the borders."""
        return Substitution("average", ())

    def through(self, op: str, func: Function, bound: Arguments, layer: Any) -> Any:
        """Average the windows."""
        return average(op, bound, layer.padding == "circular")

    cases = (
        Case("module", lambda: nn.MaxPool2d(3, 1, 1)),
        Case("in_1d", lambda: nn.MaxPool1d(5, 1, 2), (2, 4, 17)),
        Case("dilated", lambda: nn.MaxPool2d(3, 1, 1, dilation=2), kept="gaps"),
    )
