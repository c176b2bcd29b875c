"""Carry out a plan on a live model, and undo it. Nothing else changes models."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .attributes import PLAN
from .edits.edit import Undo
from .edits.watch import unwatch, watch
from .layers.build import build
from .layers.ladder import Passes
from .layers.resampling import Resampling
from .layers.substitution import Substitution
from .planning.plan import Plan
from .running import where


def apply(model: nn.Module, plan: Plan) -> None:
    """Apply every edit of ``plan`` to ``model`` in place: first all checks, then all changes.

    Raises:
        AliasfixError: the plan does not fit the model; the model stays as it is.
    """
    for edit in plan.edits:
        edit.check(edit.find(model))

    passes = Passes()

    def build_for(module: nn.Module, layer: Resampling | Substitution, enlarges: bool) -> nn.Module:
        return _like(build(plan.recipe, layer, enlarges, passes), module, model)

    undone: list[Undo] = []
    try:
        for edit in plan.edits:
            undone.append(edit.apply(edit.find(model), build_for))
    except BaseException:  # an interrupt, too
        for step in reversed(undone):
            step()
        raise
    watch(model, plan.edits)
    model.__dict__[PLAN] = plan


def executed(model: nn.Module) -> Plan | None:
    """Return the plan that `apply` carried out on this model, None if there is none."""
    plan: Plan | None = model.__dict__.get(PLAN)
    return plan


def note_calibration(model: nn.Module, calibration: Mapping[str, Any] | None) -> Plan:
    """Store in a converted model's plan how its weights were calibrated."""
    plan: Plan = replace(model.__dict__[PLAN], calibration=calibration)
    model.__dict__[PLAN] = plan
    return plan


def undo(model: nn.Module, plan: Plan) -> None:
    """Undo every edit of ``plan``; the weights keep their current values.

    Raises:
        AliasfixError: an edited module is missing; the model stays as it is.
    """
    found = [(edit, edit.find(model)) for edit in plan.edits]
    for edit, module in reversed(found):
        edit.undo(module)
    unwatch(model)
    del model.__dict__[PLAN]


def _like(layer: nn.Module, module: nn.Module, model: nn.Module) -> nn.Module:
    """Give a layer the mode of ``module``, and the device and dtype of its weights (or those of the model)."""
    weight = where(module, where(model))
    layer.to(weight.device, weight.dtype if weight.dtype.itemsize > 1 else torch.float32)
    return layer.train(module.training)
