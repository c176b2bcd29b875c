"""Find the per-position tail of a strided convolution, behind which the blur goes.

The tail consists of operations that act on each position separately: bias, normalisation with stored statistics or over
channels, activation, dropout. It may branch and meet again, as in ``x * sigmoid(x)``; the *cut* is a node through which
every branch passes. The tail ends before operations that mix positions, and before unknown operations.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import fx

from ..tracing.operation import of
from .permutation import permutation

_LINEAR = {
    *("batch_norm", "layer_norm", "rms_norm", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"),
    *("alpha_dropout", "feature_alpha_dropout", "add", "sub", "mul", "div", "true_divide", "neg", "contiguous"),
    *("to", "float", "half", "bfloat16", "double", "type_as", "clone", "detach", "held", "permute", "transpose"),
    *("movedim", "moveaxis", "swapaxes", "subtract", "multiply", "divide"),
}
_NONLINEAR = {
    *("relu", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "selu", "celu"),
    *("prelu", "sigmoid", "tanh", "softplus", "mish", "softsign", "rrelu", "logsigmoid", "threshold", "tanhshrink"),
    *("softshrink", "hardshrink", "clamp", "clamp_min", "clamp_max", "exp", "log", "sqrt", "rsqrt", "abs", "square"),
    *("sin", "cos", "pow", "erf", "reciprocal", "maximum", "minimum"),
}
_BY_POSITION = _LINEAR | _NONLINEAR
_PRODUCTS = {"mul", "multiply", "div", "true_divide", "divide"}
_MOVES = {"permute", "transpose", "movedim", "moveaxis", "swapaxes"}


@dataclass(frozen=True)
class Tail:
    """The tail of one or several strided operations.

    Args:
        roots: the strided operations; several if parallel branches meet in an add.
        cut: the node that the blur follows, None if the tail ends before a nonlinearity.
        axes: the spatial axes at the cut, counted from the end.
        nodes: the roots and the operations up to the cut, in order.
    """

    roots: tuple[fx.Node, ...]
    cut: fx.Node | None
    axes: tuple[int, ...] = ()
    nodes: tuple[fx.Node, ...] = ()


def kind(op: str) -> str:
    """Return the name of an operation without the marks of its in-place and reflected forms.

    >>> kind("relu_"), kind("__iadd__"), kind("__rmul__")
    ('relu', 'add', 'mul')
    """
    plain = op.strip("_")
    if op.startswith("__") and plain[:1] in "ir" and plain[1:] in _BY_POSITION:
        return plain[1:]
    return plain


def acts_by_position(op: str) -> bool:
    """Whether the operation acts on each position separately.

    >>> acts_by_position("relu_"), acts_by_position("conv2d")
    (True, False)
    """
    return kind(op) in _BY_POSITION


def is_nonlinear(op: str) -> bool:
    """Whether an operation is a pointwise nonlinearity.

    >>> is_nonlinear("relu_"), is_nonlinear("add")
    (True, False)
    """
    return kind(op) in _NONLINEAR


def find_tail(root: fx.Node, axes: int, roots: Collection[fx.Node]) -> Tail:
    """Follow the tail of ``root`` up to its first nonlinearity.

    Args:
        root: the strided operation.
        axes: its number of spatial axes.
        roots: the operations that may be blurred together with it where they meet in an add.
    """
    region = {root: tuple(range(-axes, 0))}
    joined, nonlinear = [root], False
    while True:
        waiting = sorted({user for node in region for user in node.users if user not in region})
        if not waiting:
            return Tail(tuple(joined), None)
        node = waiting[0]
        if not nonlinear and kind(of(node).name) in ("add", "sub"):
            joined += _join(node, region, roots, axes)
        moved = _position_axes(node, region, axes)
        if moved is None:
            return Tail(tuple(joined), None)
        region[node] = moved
        nonlinear = nonlinear or _is_nonlinear(node, region)
        open_ends = [n for n in region if any(user not in region for user in n.users) or not n.users]
        # other uses of a tensor that was changed in place do not see a blur of the function's result
        seen_by_all = not any(of(user).name == "held" for user in node.users if user not in region)
        if nonlinear and open_ends == [node] and seen_by_all:
            return Tail(tuple(joined), node, moved, tuple(sorted(region)))


def _variables(node: fx.Node) -> list[fx.Node]:
    return [parent for parent in node.all_input_nodes if of(parent).variable]


def _is_nonlinear(node: fx.Node, region: dict[fx.Node, tuple[int, ...]]) -> bool:
    op = kind(of(node).name)
    return op in _NONLINEAR or (op in _PRODUCTS and sum(parent in region for parent in node.all_input_nodes) > 1)


def _position_axes(node: fx.Node, region: dict[fx.Node, tuple[int, ...]], axes: int) -> tuple[int, ...] | None:
    """Return the spatial axes of a per-position operation's result, counted from the end; None for other operations."""
    op = kind(of(node).name)
    variables = _variables(node)
    if op not in _BY_POSITION or of(node).shape is None or not set(variables) <= set(region):
        return None
    where = {region[parent] for parent in variables}
    if len(where) != 1:
        return None
    (spatial,) = where
    shape = of(node).sizes
    for parent in node.all_input_nodes:
        extent = of(parent).shape
        if extent is None or of(parent).variable:
            continue
        if op in ("batch_norm", "prelu", "layer_norm", "rms_norm"):  # their constants lie along the channels
            continue
        if any(-axis <= len(extent) and extent[axis] != 1 for axis in spatial):
            return None
    if op == "batch_norm":
        running_mean = node.args[1] if len(node.args) > 1 else node.kwargs.get("running_mean")
        return spatial if running_mean is not None else None
    if op in ("layer_norm", "rms_norm"):
        normalized: Any = node.args[1] if len(node.args) > 1 else node.kwargs["normalized_shape"]
        return spatial if all(-axis > len(normalized) for axis in spatial) else None
    if op in _MOVES:
        order = None if op in ("movedim", "moveaxis") else permutation(node)
        return None if order is None else tuple(order.index(axis % len(shape)) - len(shape) for axis in spatial)
    return spatial if len(shape) == len(of(variables[0]).sizes) else None


def _join(
    node: fx.Node, region: dict[fx.Node, tuple[int, ...]], roots: Collection[fx.Node], axes: int
) -> list[fx.Node]:
    """Add the branches that reach an add from other strided operations without a nonlinearity; return these."""
    found: list[fx.Node] = []
    taken: dict[fx.Node, tuple[int, ...]] = {}
    for parent in _variables(node):
        step = parent
        branch = []
        while step not in region and step not in taken:
            branch.append(step)
            if step in roots:
                found.append(step)
                break
            sources = _variables(step)
            if kind(of(step).name) not in _LINEAR or kind(of(step).name) in _MOVES or len(step.users) != 1:
                return []
            if len(sources) != 1:
                nested = [source for source in sources if source not in region and source not in taken]
                if kind(of(step).name) != "add" or len(nested) != 1:
                    return []
                sources = nested
            step = sources[0]
        if any(len(step.users) != 1 for step in branch):
            return []
        taken |= {step: tuple(range(-axes, 0)) for step in branch}
    region |= taken
    return found
