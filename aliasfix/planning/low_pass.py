"""Recognise somebody else's blur by what it is: a depthwise convolution with a fixed low-pass kernel."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..tracing.operation import of
from ..tracing.trace import Trace
from .rule import per_axis, spatial_axes

BLURS = {"blur_pool", "ideal_pool"}  # the functions of the layers that a conversion inserts
_LAYOUT = {
    *("view", "reshape", "permute", "transpose", "movedim", "flatten", "unflatten", "squeeze", "unsqueeze", "pad"),
    *("contiguous", "clone", "to", "float", "half", "bfloat16", "type_as", "held", "__getitem__"),
}


def is_low_pass(trace: Trace, weight: fx.Node, groups: int) -> bool:
    """Whether a depthwise kernel is fixed, the same for every channel, non-negative, symmetric and of sum 1.

    timm's ``aa_layer``, antialiased_cnns, kornia and composer all blur by such a kernel. One channel is a group, too:
    StyleGAN's ``upfirdn2d`` may put the channels into the batch.
    """
    shape = of(weight).sizes
    if shape[0] != groups or shape[1] != 1 or max(shape[2:]) < 2:
        return False
    kernel = fixed_value(trace, weight)
    if kernel is None or kernel.device.type == "meta":
        return False
    kernel = kernel.detach().float()
    total = kernel.flatten(1).sum(1)
    return bool(
        torch.allclose(kernel, kernel[:1].expand_as(kernel), atol=1e-6)
        and (kernel >= 0).all()
        and torch.allclose(total, torch.ones_like(total), atol=1e-4)
        and torch.allclose(kernel, kernel.flip(tuple(range(2, kernel.dim()))), atol=1e-6)
    )


def is_blurred(trace: Trace, node: fx.Node, rates: Sequence[int]) -> bool:
    """Whether a map comes from such a blur at stride 1, of at least ``rates`` taps along the last axes.

    Between the blur and the map is nothing but a change of layout, padding and cropping. A separable blur may be one
    convolution for each axis.
    """
    taps = [1] * len(rates)
    while any(count < rate for count, rate in zip(taps, rates, strict=True)):
        call = of(node)
        if call.name.startswith("conv") and "weight" in call.arguments:
            axes, bound = spatial_axes(call.name), call.arguments
            dense = max(per_axis(bound.get("stride", 1), axes)) == max(per_axis(bound.get("dilation", 1), axes)) == 1
            if axes < len(rates) or not dense or not is_low_pass(trace, bound["weight"], bound.get("groups", 1)):
                return False
            kernel = of(bound["weight"]).sizes[-len(rates) :]
            taps = [count + size - 1 for count, size in zip(taps, kernel, strict=True)]
        elif call.name not in _LAYOUT or _steps(node):
            return False
        node = call.arguments.get("input", node.all_input_nodes[0])
    return True


def _steps(node: fx.Node) -> bool:
    """Whether an index does anything but crop."""
    index = node.args[1] if of(node).name == "__getitem__" else ()
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, fx.Node) or (isinstance(part, slice) and part.step not in (None, 1)) for part in parts)


def fixed_value(trace: Trace, node: fx.Node) -> Tensor | None:
    """Return the value of a node, None if it depends on the input or on a parameter that trains."""
    if node in trace.constants:
        constant = trace.constants[node]
        return None if constant.requires_grad else constant
    if of(node).name in ("to", "type_as"):  # a type like that of a tensor, which may depend on the input
        return fixed_value(trace, node.all_input_nodes[0])
    if of(node).variable or node.op != "call_function":
        return None
    values = {}
    for parent in node.all_input_nodes:
        value = fixed_value(trace, parent)
        if value is None:
            return None
        values[parent] = value
    args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), lambda part: _given(part, values))
    with torch.random.fork_rng(devices=[]):  # random numbers are drawn again
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    return result if isinstance(result, Tensor) else None


def _given(argument: Any, values: Mapping[fx.Node, Tensor]) -> Any:
    """An argument as it is outside of the recorded pass, which may have run on the meta device."""
    if isinstance(argument, fx.Node):
        return values[argument]
    return "cpu" if isinstance(argument, torch.device) and argument.type == "meta" else argument
