"""The public conversion: recipe → trace → plan → surgery."""

import dataclasses
import functools
import glob
import warnings
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import fx, nn
from torch.nn.parameter import UninitializedParameter

from . import methods, surgery
from .errors import AliasfixError, LatticeWarning, NoEffectWarning
from .files.record import digest_of_weights
from .layers.build import is_low_pass_layer
from .planning.plan import Plan
from .planning.planner import make_plan
from .planning.rule import parameters
from .recipe import Recipe
from .running import copied
from .tracing.example import traces

Selection = str | Sequence[str] | Callable[[nn.Module, str], bool] | None
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _with_method(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Add the options of ``method=`` to those given.

    Options beside ``recipe=``, which would be ignored, are refused, even those with a default value.
    """
    names = list(signature(function).parameters)
    options = {option.name for option in dataclasses.fields(Recipe)}

    @functools.wraps(function)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        given = {*names[: len(args)], *kwargs}
        if kwargs.get("recipe") is not None and (options | {"method"}) & given:
            raise AliasfixError("recipe= holds all options: give recipe= alone, or the options without it")
        if kwargs.get("recipe") is None:
            chosen = methods.options(str(kwargs.get("method", "blur")))
            kwargs.update({name: value for name, value in chosen.items() if name not in given})
        return function(*args, **kwargs)

    return checked


@torch.inference_mode(False)
@_with_method
def convert(
    model: nn.Module,
    filter: str | Sequence[float] = "tri3",
    *,
    example_input: Any = None,
    padding: str = "reflect",
    stem: str = "paper",
    average: str = "keep",
    gather: str = "keep",
    include: Selection = None,
    exclude: Selection = None,
    budget: float | None = None,
    memory_budget: float | None = None,
    phase: str = "fixed",
    phase_norm: float = 2.0,
    activation: str = "keep",
    oversampling: int = 2,
    norm: str = "keep",
    pool: str = "keep",
    method: str = "blur",
    recipe: Recipe | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Anti-alias every sampling operation of a model, keeping its weights (Zhang, ICML 2019).

    Args:
        model: any module. Its class, methods, parameters and state_dict keys stay the same.
        filter, padding, stem, average, gather, budget, memory_budget, phase, phase_norm,
        activation, oversampling, norm, pool: see `Recipe`.
        example_input: an input to trace the model with: a tensor, a tuple of positional arguments, or a dict of keyword
            arguments. Default: an image of the size in the model's own configuration, else of a guessed size.
        include, exclude: module-path globs, or a predicate of (module, path).
        method: a named set of options, see `aliasfix.methods`; options given beside it win.
        recipe: all options at once, instead of single ones.
        inplace: convert ``model`` itself; the weights are not copied.

    Returns:
        The converted model: a copy, or ``model`` itself with ``inplace``.

    Raises:
        AliasfixError: an option is wrong, the model does not run on the example input, or the model was converted by
            another recipe. The model stays as it is.

    Warns:
        NoEffectWarning: no operation of the model is converted.
        LatticeWarning: an even filter shifts branches that meet by half a sample relative to each other.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> convert(model, "tri3")(torch.ones(1, 3, 16, 16)).shape
    torch.Size([1, 8, 7, 7])
    """
    _refuse(model)
    globs = _paths(model, include), _paths(model, exclude)
    sampling = filter, padding, stem, average, gather, *globs, budget, memory_budget, phase, phase_norm
    options = recipe or Recipe(*sampling, activation, oversampling, norm, pool)
    done = surgery.executed(model)
    if done is not None and done.recipe != options:
        raise AliasfixError(f"the model was converted with {done.recipe}; undo that first with aliasfix.revert(model)")
    plan = done if done is not None else _plan(model, options, example_input)
    if not inplace:
        model = copied(model)
    if done is not None:
        return model
    if not plan.converted:
        reason = " ".join(dict.fromkeys(str(step.reason) for step in plan.kept)) or "No operation in it samples."
        warnings.warn(f"nothing to convert in {type(model).__name__}: {reason}", NoEffectWarning, stacklevel=4)
        return model
    if plan.lattice.drifts:
        drift = plan.lattice.drifts[0]
        warnings.warn(
            f"the even filter moves the branches of {len(plan.lattice.drifts)} merges apart, first in "
            f"{drift.path or 'the model'} by {drift.shift:g} input samples; an odd filter such as tri3 does not",
            LatticeWarning,
            stacklevel=4,
        )
    surgery.apply(model, plan)
    return model


@torch.inference_mode(False)
@_with_method
def inspect(
    model: nn.Module,
    filter: str | Sequence[float] = "tri3",
    *,
    example_input: Any = None,
    padding: str = "reflect",
    stem: str = "paper",
    average: str = "keep",
    gather: str = "keep",
    include: Selection = None,
    exclude: Selection = None,
    budget: float | None = None,
    memory_budget: float | None = None,
    phase: str = "fixed",
    phase_norm: float = 2.0,
    activation: str = "keep",
    oversampling: int = 2,
    norm: str = "keep",
    pool: str = "keep",
    method: str = "blur",
    recipe: Recipe | None = None,
) -> Plan:
    """Plan a conversion without carrying it out. The options are those of `convert`.

    Returns:
        A `Plan`, which iterates over its steps and prints as a table.

    >>> [(step.path, step.action) for step in inspect(nn.Sequential(nn.MaxPool2d(2)))]
    [('0', 'convert')]
    """
    _refuse(model)
    globs = _paths(model, include), _paths(model, exclude)
    sampling = filter, padding, stem, average, gather, *globs, budget, memory_budget, phase, phase_norm
    options = recipe or Recipe(*sampling, activation, oversampling, norm, pool)
    return _plan(model, options, example_input)


def report(model: nn.Module) -> Plan | None:
    """Return the executed plan of a converted model, None if the model was not converted.

    >>> report(nn.Sequential()) is None
    True
    """
    return surgery.executed(model)


@torch.inference_mode(False)
def revert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Undo a conversion. With the same weights, the model computes what the original does, bit for bit.

    Args:
        model: a converted model.
        inplace: revert ``model`` itself, instead of a copy.

    Raises:
        AliasfixError: the model was not converted, or was calibrated: then its weights fit the blurs, and the original
            weights have to be loaded first.

    >>> model = revert(convert(nn.Sequential(nn.MaxPool2d(2))))
    >>> model
    Sequential(
      (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    )
    """
    _refuse(model)
    plan = surgery.executed(model)
    if plan is None:
        raise AliasfixError("the model is not a converted one: aliasfix.report(model) is None")
    if plan.calibration is not None and is_calibrated(model):
        raise AliasfixError(
            f"the model was calibrated ({plan.calibration['method']}), which changed its weights: "
            f"load the original's first with model.load_state_dict, then revert"
        )
    if not inplace:
        return unblurred(model)
    surgery.undo(model, plan)
    return model


def unblurred(model: nn.Module) -> nn.Module:
    """Return a copy of a converted model without its blurs, with the current weights."""
    plan = surgery.executed(model)
    assert plan is not None
    model = copied(model)
    surgery.undo(model, plan)
    return model


def is_calibrated(model: nn.Module) -> bool:
    """Whether a converted model was calibrated and still has calibrated weights."""
    plan = surgery.executed(model)
    calibration = plan.calibration if plan is not None else None
    return calibration is not None and calibration["before"] != digest_of_weights(model.state_dict())


def _paths(model: nn.Module, selection: Selection) -> Sequence[str] | None:
    if callable(selection):
        named = [(path, m) for path, m in model.named_modules() if not is_low_pass_layer(m)]
        return tuple(glob.escape(path) for path, module in named if selection(module, path))
    return selection


def _plan(model: nn.Module, recipe: Recipe, example_input: Any) -> Plan:
    recorded, notes, _ = traces(model, example_input, parameters())
    return make_plan(model, recipe, recorded, notes)


def _refuse(model: nn.Module) -> None:
    """Raise an AliasfixError for a model that cannot be converted, and say what to convert instead."""
    if isinstance(model, torch.export.ExportedProgram):
        raise AliasfixError("the model is a program of torch.export: convert the module it was made from, then export")
    if not isinstance(model, nn.Module):
        raise AliasfixError(f"aliasfix takes a torch.nn.Module, not a {type(model).__name__}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise AliasfixError(f"the model is wrapped in {type(model).__name__}: convert model.module, then wrap it")
    if isinstance(model, fx.GraphModule):
        raise AliasfixError("the model is an FX graph: convert the model it was traced from, then trace it")
    for path, module in model.named_modules():
        what = f"the part {path!r}" if path else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise AliasfixError(f"{what} is scripted: convert the Python module it was made from, then script it")
        if isinstance(module, torch._dynamo.eval_frame.OptimizedModule):
            raise AliasfixError(f"{what} is compiled: convert what it was made from (its _orig_mod), then compile it")
        if module._compiled_call_impl is not None:
            raise AliasfixError(f"{what} is compiled in place: convert first, then compile it")
        if any(isinstance(p, UninitializedParameter) for p in module._parameters.values()):
            raise AliasfixError(f"{what} is a lazy layer, uninitialized: run the model once, then convert")
        if hasattr(module, "_hf_hook") and any(p is not None and p.is_meta for p in module._parameters.values()):
            raise AliasfixError(
                f"{what} is offloaded by accelerate, and its weights are not in it: call "
                f"accelerate.hooks.remove_hook_from_submodules(model), convert, then offload"
            )
