"""Norms.

    (x − mean_C) / √(var_C + ε)   →   (x − mean_C) / √(var_{C,positions} + ε)     (norm="alias-free")

Layer normalisation over the channels divides each position by a deviation of its own. That map of reciprocals has no
end of frequencies, and the quotient aliases. The mean over the channels is linear and stays; the variance is taken over
the channels and all positions, so that one number divides the whole map.

Batch normalisation is linear in evaluation. Statistics over all positions, as of group and instance normalisation, do
not depend on where the map lies: both are left alone, with that reason.

Shapes: unchanged.

Weights: untouched.

Source: Michaeli et al., "Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations", CVPR 2023,
section 3.3 (AF-LN).
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from aliasfix.layers.substitution import Substitution
from aliasfix.planning.provenance import spatial
from aliasfix.planning.rule import Arguments, Case, Convolved, Function, Rule, Site
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation
from aliasfix.tracing.trace import Trace

_REASONS = {
    "batch_norm": "It is linear in evaluation.",
    "group_norm": "Its statistics are over all positions, which a shift does not change.",
    "instance_norm": "Its statistics are over all positions, which a shift does not change.",
}


class Norm(Rule):
    """``layer_norm`` over the channels; batch, group and instance normalisation need no change."""

    purpose = "norm"
    signatures = {
        "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
        **dict.fromkeys(_REASONS, ("input",)),
    }
    options = {"norm": "alias-free"}

    def acts(self, recipe: Recipe) -> bool:
        """Whether the recipe asks for alias-free norms."""
        return recipe.norm == "alias-free"

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a norm of a map of several positions."""
        if not call.variable or call.shape is None or not spatial(trace, call.node, longer_than=1):
            return None
        reason = _REASONS.get(call.name)
        if call.name == "layer_norm" and len(call.arguments["normalized_shape"]) > 1:
            reason = "It normalises over positions, with weights for each: no shift commutes with it."
        return Site((), reason=reason)

    def inserts(self, call: Operation, trace: Trace, recipe: Recipe) -> Substitution:
        """Return the layer."""
        return Substitution("norm", spatial(trace, call.node, longer_than=0))

    def through(self, op: str, func: Function, bound: Arguments, layer: Any) -> Any:
        """Normalise by the layer."""
        given = dict(bound)
        return layer(given.pop("input"), **given)

    cases = (
        Case("function", lambda: Convolved(_layer_norm)),
        Case("channels_last", lambda: Convolved(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)))),
        Case("batch_norm", lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), kept="linear"),
        Case("group_norm", lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6)), kept="all positions"),
        Case("over_positions", lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.LayerNorm([6, 14, 16])), kept="positions"),
    )


def _layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x.movedim(1, -1), (4,), eps=1e-6).movedim(-1, 1)
