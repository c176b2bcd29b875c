"""Where in two networks a plan's sampling sites can be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from aliasfix.conversion import inspect, report
from aliasfix.images.inputs import batches
from aliasfix.layers.blur import BlurPool
from aliasfix.measure.running import running
from aliasfix.planning.plan import BlurModule, Plan, Step
from aliasfix.running import watching, where


def plan_of(a: nn.Module, b: nn.Module, example: Tensor) -> Plan:
    """What was done to the second network, else to the first, else what the default recipe would do to the first."""
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


def sampled_at(model: nn.Module, plan: Plan, step: Step) -> list[str]:
    """The modules of a model that subsample for one step of a plan, as `aliasfix.measure.aliasing` names them."""
    own = report(model)
    if own is None or step.action == "keep":
        return [step.path]
    hosts = {edit.path for edit in step.edits if hasattr(edit, "blur")}
    blurs = [
        f"{host}.{name}" if host else name
        for host in hosts
        for name, child in model.get_submodule(host).named_children()
        if isinstance(child, BlurPool) and max(child.stride) > 1
    ]
    return [*blurs, step.path] if step.form in ("blur-first", "split") else blurs


def _after(step: Step) -> str:
    ends = [edit.path for edit in step.edits if isinstance(edit, BlurModule) and edit.where == "after"]
    return ends[-1] if ends else step.path


def _maps(model: nn.Module, example: Tensor) -> list[str]:
    """The modules that give one map (B, C, h, w) for each input, in the order in which they end."""
    names: dict[str, None] = {}

    def see(name: str, module: nn.Module, args: Any, result: Any) -> None:
        if isinstance(result, Tensor) and result.ndim == 4 and len(result) == len(example):
            names[name] = None

    layers = [(name, module) for name, module in model.named_modules() if name and not isinstance(module, BlurPool)]
    with running(model, None, "layers") as run, watching(layers, see):
        for batch, _ in batches(example[:, None], len(example), labels=False):
            run.forward(run.place(batch))
            break
    return list(names)


def example_of(image: Tensor, model: nn.Module) -> Tensor:
    """Two copies of an image, of the model's dtype and on its device."""
    return image[None].expand(2, -1, -1, -1).to(where(model, image))
