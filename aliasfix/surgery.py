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
from .layers.resampling import Resampling
from .planning.plan import Plan
from .running import where


def apply(model: nn.Module, plan: Plan) -> None:
    """Make every edit of ``plan`` on ``model`` in place: first all checks, then the changes.

    Raises:
        AliasfixError: the model is not the one that was planned; nothing is changed.
    """
    for edit in plan.edits:
        edit.check(edit.find(model))

    def build_for(module: nn.Module, resampling: Resampling, enlarges: bool) -> nn.Module:
        layer = build(plan.recipe, resampling, enlarges)
        return _like(layer, module, model)

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
    """The plan that `apply` carried out on this model."""
    plan: Plan | None = model.__dict__.get(PLAN)
    return plan


def note_calibration(model: nn.Module, calibration: Mapping[str, Any] | None) -> Plan:
    """Write into a converted model's plan how its weights were calibrated."""
    plan: Plan = replace(model.__dict__[PLAN], calibration=calibration)
    model.__dict__[PLAN] = plan
    return plan


def undo(model: nn.Module, plan: Plan) -> None:
    """Take back every edit of ``plan``; the weights stay as they are now.

    Raises:
        AliasfixError: a part that was edited is gone; nothing is changed.
    """
    found = [(edit, edit.find(model)) for edit in plan.edits]
    for edit, module in reversed(found):
        edit.undo(module)
    unwatch(model)
    del model.__dict__[PLAN]


def _like(layer: nn.Module, module: nn.Module, model: nn.Module) -> nn.Module:
    """The layer in the mode of ``module``, where that module's weights are (the model's if it has none)."""
    weight = where(module, where(model))
    layer.to(weight.device, weight.dtype if weight.dtype.itemsize > 1 else torch.float32)
    return layer.train(module.training)
