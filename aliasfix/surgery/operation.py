"""Carry out a plan on a live model, and undo it. The only file that changes models."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..errors import AliasfixError
from ..layers.blur import BlurPool
from ..planning.places import can_host
from ..planning.plan import BLUR, Blur, BlurCall, BlurModule, DenseCall, Edit, Plan, ReplaceCall, Restride
from ..planning.rule import by_name
from .hooks import BlurAfter, BlurBefore, Rewritten, rewritten

_PLAN = "_aliasfix_plan"


def apply(model: nn.Module, plan: Plan) -> None:
    """Make every edit of ``plan`` on ``model`` in place: first all checks, then the changes.

    Raises:
        AliasfixError: the model is not the one that was planned; nothing is changed.
    """
    for edit in plan.edits:
        _check(model, edit)
    undo: list[Callable[[], None]] = []
    try:
        for edit in plan.edits:
            _make(model, edit, plan, undo)
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    model.__dict__[_PLAN] = plan


def executed(model: nn.Module) -> Plan | None:
    """The plan that `apply` carried out on this model."""
    plan: Plan | None = model.__dict__.get(_PLAN)
    return plan


def note_calibration(model: nn.Module, calibration: Mapping[str, Any] | None) -> Plan:
    """Write into a converted model's plan how its weights were calibrated."""
    plan: Plan = replace(model.__dict__[_PLAN], calibration=calibration)
    model.__dict__[_PLAN] = plan
    return plan


def undo(model: nn.Module, plan: Plan) -> None:
    """Take back every edit of ``plan``; the weights stay as they are now.

    Raises:
        AliasfixError: a part that was edited is gone; nothing is changed.
    """
    for edit in plan.edits:
        _find(model, edit)
    for edit in reversed(plan.edits):
        module = model.get_submodule(edit.path)
        if isinstance(edit, Restride):
            setattr(module, "stride", _like(module.stride, edit.was))  # noqa: B010
            continue
        if not isinstance(edit, BlurModule):
            module.__dict__.pop(edit.method, None)
        for name, child in list(module.named_children()):
            if name.startswith(BLUR):
                _remove(module, name, child)
    del model.__dict__[_PLAN]


def _find(model: nn.Module, edit: Edit) -> nn.Module:
    try:
        return model.get_submodule(edit.path)
    except AttributeError:
        raise AliasfixError(f"the plan edits {edit.path!r}, which this model does not have (any more)") from None


def _check(model: nn.Module, edit: Edit) -> None:
    module = _find(model, edit)
    if isinstance(edit, Restride) and _flat(getattr(module, "stride", None)) != _flat(edit.was):
        raise AliasfixError(
            f"{edit.path}: the plan expects stride {edit.was}, the module has {getattr(module, 'stride', None)}"
        )
    if isinstance(edit, BlurModule | BlurCall | ReplaceCall) and not can_host(module):
        raise AliasfixError(f"{edit.path}: a {type(module).__name__} would run an added blur as a layer of its own")
    if isinstance(edit, BlurCall | DenseCall | ReplaceCall) and not hasattr(type(module), edit.method):
        raise AliasfixError(f"{edit.path}: {type(module).__name__} has no method {edit.method!r}")


def _make(model: nn.Module, edit: Edit, plan: Plan, undo: list[Callable[[], None]]) -> None:
    """Make one edit, and add what takes it back to ``undo`` before each change."""
    module = model.get_submodule(edit.path)
    if isinstance(edit, Restride):
        undo.append(lambda: setattr(module, "stride", _like(module.stride, edit.was)))
        setattr(module, "stride", _like(module.stride, edit.stride))  # noqa: B010
        return
    name = ""
    if isinstance(edit, BlurModule | BlurCall | ReplaceCall):
        layer = by_name(edit.rule).replacement if isinstance(edit, ReplaceCall) else BlurPool
        name, blur = _new_blur(model, module, plan, layer, edit.blur)
        undo.append(lambda: _remove(module, name, blur))
        module.add_module(name, blur)
    if isinstance(edit, BlurModule):
        # The handle is kept because unpickling it reserves the hook's id: in a new process ids start from 0, and
        # somebody's next hook would otherwise overwrite this one.
        blur.handle = (
            module.register_forward_hook(BlurAfter(name))
            if edit.where == "after"
            else module.register_forward_pre_hook(BlurBefore(name, edit.arg), prepend=True)
        )
        return
    method = module.__dict__.get(edit.method)
    edits = method.edits if isinstance(method, Rewritten) else ()
    undo.append(lambda: module.__dict__.pop(edit.method, None) and None)
    module.__dict__[edit.method] = rewritten(module, edit.method, (*edits, (edit, name)))


def _new_blur(
    model: nn.Module, module: nn.Module, plan: Plan, layer: type[BlurPool], spec: Blur
) -> tuple[str, BlurPool]:
    """A blur for ``module``, where its own weights are (the model's if it has none), and a free name for it."""
    name = BLUR
    while hasattr(module, name):
        name = f"{BLUR}_{int(name[len(BLUR) + 1 :] or 1) + 1}"
    blur = layer(plan.recipe.filter, spec.rate, spec.stride, plan.recipe.padding, spec.axes)
    near = (tensor for each in (module, model) for tensor in itertools.chain(each.parameters(), each.buffers()))
    weight = next((tensor for tensor in near if tensor.is_floating_point()), None)
    if weight is not None:
        blur.to(weight.device, weight.dtype if weight.dtype.itemsize > 1 else torch.float32)
    blur.train(module.training)
    return name, blur


def _remove(module: nn.Module, name: str, blur: nn.Module) -> None:
    if isinstance(blur, BlurPool) and blur.handle is not None:
        blur.handle.remove()
    module._modules.pop(name, None)


def _flat(stride: object) -> tuple[int, ...]:
    parts = (stride,) if isinstance(stride, int) else tuple(stride or ())  # type: ignore[arg-type]
    return parts[:1] if len(set(parts)) == 1 else parts


def _like(old: object, stride: tuple[int, ...]) -> int | tuple[int, ...]:
    """``stride`` in the form in which the module keeps it: one number or one per axis."""
    return stride[0] if isinstance(old, int) else tuple(stride)
