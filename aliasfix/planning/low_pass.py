"""Recognise low-pass downsampling: a strided depthwise convolution with a fixed low-pass kernel."""

from typing import Any

import torch
from torch import Tensor, fx

from ..tracing.operation import of
from ..tracing.trace import Trace


def is_low_pass(trace: Trace, weight: fx.Node, groups: int) -> bool:
    """Whether a depthwise kernel is fixed, the same for every channel, non-negative, symmetric and of sum 1.

    timm's ``aa_layer``, antialiased_cnns, kornia and composer all downsample by such a kernel.
    """
    shape = of(weight).sizes
    if groups < 2 or shape[0] != groups or shape[1] != 1 or max(shape[2:]) < 2:
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


def fixed_value(trace: Trace, node: fx.Node) -> Tensor | None:
    """Return the value of a node, None if it depends on the input or on a parameter that trains."""
    if node in trace.constants:
        constant = trace.constants[node]
        return None if constant.requires_grad else constant
    if of(node).variable or node.op != "call_function":
        return None
    values = {}
    for parent in node.all_input_nodes:
        value = fixed_value(trace, parent)
        if value is None:
            return None
        values[parent] = value
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda parent: values[parent])
    function: Any = node.target
    result = function(*args, **kwargs)
    return result if isinstance(result, Tensor) else None
