"""The plan that a comparison uses, and the layers at its sampling sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aliasfix.conversion import inspect, report
from aliasfix.edits import BlurModule
from aliasfix.layers.build import is_low_pass_layer
from aliasfix.measure.running import running
from aliasfix.planning.plan import Plan, Step
from aliasfix.running import watching, where


def plan_of(a: nn.Module, b: nn.Module, example: Tensor) -> Plan:
    """Return the executed plan of the second network, else of the first, else the default plan for the first."""
    return report(b) or report(a) or inspect(a, example_input=example)


def layers(plan: Plan, models: Sequence[nn.Module], example: Tensor) -> list[str]:
    """The modules before and after each sampling site whose features can be followed in every model.

    After a converted site is after its blur; before it is the module that ran just before the strided one.
    """
    runs = [_maps(model, example) for model in models]
    wanted = []
    for step in plan:
        order = [name for name in runs[0] if not any(models[0].get_submodule(name).children())]
        if step.path in order and order.index(step.path):
            wanted.append(order[order.index(step.path) - 1])
        wanted.append(_after(step))
    usable = [name for name in dict.fromkeys(wanted) if name and all(name in run for run in runs)]
    return [name for name in runs[0] if name in usable]


def _after(step: Step) -> str:
    ends = [edit.path for edit in step.edits if isinstance(edit, BlurModule) and edit.where == "after"]
    return ends[-1] if ends else step.path


def _maps(model: nn.Module, example: Tensor) -> list[str]:
    """The modules that give one map (B, C, h, w) for each input, in the order in which they end."""
    names: dict[str, None] = {}

    def see(name: str, module: nn.Module, args: Any, result: Any) -> None:
        if isinstance(result, Tensor) and result.ndim == 4 and len(result) == len(example):
            names[name] = None

    layers = [(name, module) for name, module in model.named_modules() if name and not is_low_pass_layer(module)]
    with running(model, None, "layers") as run, watching(layers, see):
        run.forward(run.place(example))
    return list(names)


def example_of(image: Tensor, model: nn.Module) -> Tensor:
    """Return two copies of an image, of the model's dtype and on its device."""
    return torch.stack([image, image]).to(where(model, image))
