"""Pointwise nonlinearities.

    σ   →   Low-pass ∘ Subsample_f ∘ σ ∘ Upsample_f      (activation="filtered")
        →   a₀ + a₁ x + a₂ x²                            (activation="polynomial")

A pointwise function commutes with shifts by whole samples only. It makes frequencies above the Nyquist frequency,
which fold, so that a shift by half a sample of the input is none of the output. Filtered, the function is evaluated on
f times the samples, and what it makes beyond the band is dropped before it folds; a kink makes some at every f.
A polynomial of degree 2 makes at most twice the band, which three halves of the samples hold: it is exact.

A product of two maps is such a square. It is evaluated on three halves of the samples with either option.

Shapes: unchanged.

Weights: untouched if filtered. Polynomials have three coefficients for every channel and call, which are parameters:
``aliasfix_blur.coefficients`` in the state_dict.

Sources: Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021, section 3.2; Michaeli et al.,
"Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations", CVPR 2023, section 3.2.
"""

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from aliasfix.layers.hermite import project
from aliasfix.layers.substitution import Substitution
from aliasfix.planning.provenance import channel_axis, spatial
from aliasfix.planning.rule import Arguments, Case, Convolved, Function, Rule, Site
from aliasfix.planning.tail import kind
from aliasfix.recipe import Recipe
from aliasfix.tracing.operation import Operation, of
from aliasfix.tracing.trace import Trace

_ALONE = ("relu", "relu6", "silu", "selu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softsign", "sin")
_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_ALONE, "logsigmoid", "square", "gelu"), ("input",)),
    **{"leaky_relu": ("input", "negative_slope"), "elu": ("input", "alpha"), "celu": ("input", "alpha")},
    **{"hardtanh": ("input", "min_val", "max_val"), "softplus": ("input", "beta", "threshold")},
    **{"prelu": ("input", "weight"), "pow": ("input", "exponent")},
}
_PRODUCTS = dict.fromkeys(("mul", "multiply", "mul_", "__mul__", "__rmul__", "__imul__"), ("input", "other"))
_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.SELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softsign),
    *(nn.LogSigmoid, nn.GELU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.Hardtanh, nn.Softplus, nn.PReLU),
)


class Activation(Rule):
    """Activations, squares, ``sin`` and products of two maps, as modules, functions or methods."""

    purpose = "activation"
    signatures = {
        **_PARAMETERS,
        **{f"{op}_": names for op, names in _PARAMETERS.items() if hasattr(torch.Tensor, f"{op}_") or hasattr(F, op)},
        **_PRODUCTS,
    }
    modules = _MODULES
    options = {"activation": "filtered"}

    def acts(self, recipe: Recipe) -> bool:
        """Whether the recipe asks for filtered activations or polynomials."""
        return recipe.activation != "keep"

    def attributes(self, op: str, module: nn.Module) -> dict[str, Any]:
        """The arguments of a module's call; GELU's approximation, too."""
        more = {"approximate": module.approximate} if isinstance(module, nn.GELU) else {}
        return super().attributes(op, module) | more

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """Find a nonlinearity on a map of several positions; a map times one number for each channel is none."""
        if not call.variable or call.shape is None or not spatial(trace, call.node, longer_than=1):
            return None
        if call.name in _PRODUCTS and len(_factors(call, trace)) < 2:
            return None
        if kind(call.name) == "pow" and call.arguments.get("exponent") not in (2, 3, 4):
            return None
        if any(of(user).name == "held" for user in call.node.users):
            return Site((), reason="Its input is changed in place and used again, where a filter would not be seen.")
        return Site(())

    def inserts(self, call: Operation, trace: Trace, recipe: Recipe) -> Substitution:
        """Return the layer: a filter, or a polynomial of its own for every call."""
        axes = spatial(trace, call.node, longer_than=0)
        channel = channel_axis(trace, call.node)
        op = kind(call.name)
        if call.name in _PRODUCTS or op in ("square", "pow"):
            square = call.name in _PRODUCTS or op == "square" or call.arguments["exponent"] == 2
            return Substitution("product" if square else "filtered", axes, channel)
        if recipe.activation == "filtered":
            return Substitution("filtered", axes, channel)
        start = project(lambda x: _plain(call)(x))
        number = sum(of(node).path == call.path and of(node).name == call.name for node in _before(call, trace))
        return Substitution("polynomial", axes, channel, start, call.sizes[channel], number)

    def through(self, op: str, func: Function, bound: Arguments, layer: Any) -> Any:
        """Evaluate the function by the layer."""
        if op in _PRODUCTS:
            first, second = torch.broadcast_tensors(bound["input"], bound["other"])
            return layer(torch.mul, first, second)
        own = {name: value for name, value in bound.items() if name not in ("input", "inplace")}
        if kind(op) == "prelu":
            own["weight"] = _by_channel(own["weight"], layer)
            return layer(lambda x: torch.where(x > 0, x, own["weight"].to(x) * x), bound["input"])
        return layer(lambda x: func(x, **own), bound["input"])

    cases = (
        Case("relu", lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True))),
        Case("gelu", lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.GELU(approximate="tanh"))),
        Case("prelu", lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.PReLU(6))),
        Case("function", lambda: Convolved(lambda x: F.leaky_relu(x, 0.2))),
        Case("method", lambda: Convolved(lambda x: x.sigmoid())),
        Case("gate", lambda: Convolved(lambda x: x * torch.sigmoid(x))),
        Case("in_1d", lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.SiLU()), (2, 4, 17)),
        Case("in_3d", lambda: nn.Sequential(nn.Conv3d(4, 6, 3, padding=1), nn.ELU()), (2, 4, 5, 6, 7)),
        Case("snake", lambda: Convolved(lambda x: x + torch.sin(2 * x).pow(2) / 2)),
    )


def _before(call: Operation, trace: Trace) -> list[fx.Node]:
    nodes = list(trace.graph.nodes)
    return [node for node in nodes[: nodes.index(call.node)] if node.op == "call_function"]


def _factors(call: Operation, trace: Trace) -> list[fx.Node]:
    """The factors of a product that have values of their own at several positions."""
    given = [call.arguments.get("input"), call.arguments.get("other")]
    nodes = [each for each in given if isinstance(each, fx.Node) and of(each).variable and of(each).shape]
    return [node for node in nodes if spatial(trace, node, longer_than=1)]


def _plain(call: Operation) -> Function:
    """Return the function of a call for a tensor of its own, without weights, which training may change."""
    op = kind(call.name)
    func = getattr(F, op, None) or getattr(torch, op)
    own = {name: value for name, value in call.arguments.items() if name not in ("input", "inplace", "weight")}
    return (lambda x: F.leaky_relu(x, 0.25)) if op == "prelu" else lambda x: func(x, **own)


def _by_channel(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    """Return PReLU's slopes where they meet their channels, the spatial axes being the last ones."""
    return weight if weight.numel() == 1 else weight.reshape(-1, *[1] * len(layer.axes))
