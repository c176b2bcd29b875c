"""Save a converted model so that a colleague can load it, and load it: `aliasfix.save` and `aliasfix.load`."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import surgery
from ..attributes import BASE
from ..errors import AliasfixError, explaining
from ..images import known
from ..planning.plan import Plan
from ..recipe import Recipe
from ..running import copied
from ..text.wording import listing
from ..version import __version__
from . import checkpoint, directory, fingerprint, loading, models, prefixes, saving, timm_config, trained
from .checkpoint import RECORD, Checkpoint
from .record import LIBRARIES, Record, digest_of_weights, recipe_difference, steps_difference


def save(
    model: nn.Module,
    path: str | Path,
    *,
    base: str | None = None,
    base_args: Mapping[str, Any] | None = None,
    example_input: Any = None,
) -> None:
    """Save a converted model with what is needed to build it again.

    Args:
        model: a converted model; left as it is.
        path: a directory (``config.json`` and ``model.safetensors``, as timm and Hugging Face lay it out), or a file in
            the format that its suffix names, such as ``.safetensors`` or ``.pth``.
        base: ``timm:NAME`` or ``torchvision:NAME``. A model that timm built or that `load` returned says it itself.
            Without a base the file holds no model, and `load` has to be given one.
        base_args: what the base's factory is called with.
        example_input: as for `convert`: what the fingerprint of the output is taken with.

    Raises:
        AliasfixError: the model is not a converted one, its base does not build it again, or the path cannot be
            written.

    >>> import tempfile, aliasfix
    >>> model = aliasfix.convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     aliasfix.save(model, f"{folder}/net.safetensors")
    ...     loaded = aliasfix.load(f"{folder}/net.safetensors", nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)))
    >>> torch.equal(loaded(torch.ones(1, 3, 8, 8)), model(torch.ones(1, 3, 8, 8)))
    True
    """
    as_directory, path = directory.is_directory(path), Path(path)
    if not as_directory:
        saving.check_file(path)
    plan = surgery.executed(model)
    if plan is None:
        raise AliasfixError("save takes a converted model: aliasfix.report(model) is None")
    if base is None:
        if base_args is not None:
            raise AliasfixError("base_args= are those of a base: give base= too")
        base, base_args = base_of(model)
    if base is not None:
        base, base_args = _proven(model, plan, base, base_args or {})
    file = Checkpoint(path, {"state_dict": model.state_dict()})
    write_converted(path, as_directory, file, model, Record(plan, base, base_args or {}), example_input)


def write_converted(
    path: Path, as_directory: bool, file: Checkpoint, model: nn.Module, record: Record, example_input: Any = None
) -> None:
    """Write a checkpoint of a converted model that has its weights; into a directory with the model's keys."""
    if as_directory:  # timm opens it, and knows of no prefix
        file = replace(file, content={file.entry: prefixes.match(file, model.state_dict()).state})
    taken, weights = fingerprint.take(model, example_input), digest_of_weights(file.state)
    images = known.remembered(model)
    record = replace(record, version=__version__, weights=weights, fingerprint=taken, images=images)
    if not as_directory:
        return saving.write_checkpoint(path, file, record.to_dict())
    if record.base is None:
        raise AliasfixError(f"{path}: a directory says how its model is built: give base=, or save a .safetensors file")
    directory.write_directory(path, file, record, timm_config.config(model, record))


@torch.inference_mode(False)
def load(
    path: str | Path, model: nn.Module | None = None, *, recipe: Recipe | None = None, inplace: bool = False
) -> nn.Module:
    """Load a converted model: build its base, repeat the recorded steps, load the weights.

    Args:
        path: what `save` or ``aliasfix convert`` wrote.
        model: the base, for a file that names none; left as it is.
        recipe: refuse a file of another recipe.
        inplace: convert ``model`` itself and load the weights into it; no copy of it is made.

    Returns:
        The converted model, in eval mode if the file names its base; a copy of ``model``, or ``model`` itself with
        ``inplace``, otherwise.

    Raises:
        AliasfixError: the file is damaged, edited, of a newer format or of another recipe, or does not fit.

    Warns:
        UserWarning: the output is not what it was when the model was saved.
    """
    file, record = read_converted(Path(path))
    if model is not None and not inplace:
        model = copied(model)
    return restore(file, record, model, recipe)


def restore(
    file: Checkpoint, record: Record, model: nn.Module | None = None, recipe: Recipe | None = None
) -> nn.Module:
    """Load a converted model from a file that was read, into ``model`` itself where it is given."""
    path = file.path
    if recipe is not None and recipe != record.plan.recipe:
        raise AliasfixError(
            f"{path} was converted with another recipe: {recipe_difference(record.plan.recipe, recipe)}"
        )
    if model is None:
        model = _build(file, record)
        convert_as(model, record.plan, path)
        loading.load_weights(model, file, str(record.base))
        remember(model, record)
    else:
        converted = surgery.executed(model) is not None
        convert_as(model, record.plan, path)
        try:
            loading.load_weights(model, file, type(model).__name__)
        except AliasfixError:
            if not converted:
                surgery.undo(model, record.plan)
            raise
    if record.plan.calibration is not None:
        surgery.note_calibration(model, record.plan.calibration)
    trained.remember_images(model, file)
    if record.fingerprint is not None and (difference := fingerprint.difference(model, record.fingerprint)):
        warnings.warn(f"{path}: {difference} from what it was when the model was saved", stacklevel=2)
    return model


def read_converted(path: Path) -> tuple[Checkpoint, Record]:
    """A file or directory of a converted model, and its record; the weights are those that were saved.

    Raises:
        AliasfixError: it is damaged, edited, of a newer format, or of no converted model.
    """
    file = directory.read_directory(path) if path.is_dir() else checkpoint.read_checkpoint(path)
    return file, recorded(file)


def recorded(file: Checkpoint) -> Record:
    """The record of a file, whose weights are those that were saved.

    Raises:
        AliasfixError: they are not, or there is none.
    """
    record = file.record
    if record is None:
        raise AliasfixError(_unrecorded(file))
    if record.weights is not None and record.weights != digest_of_weights(file.state):
        raise AliasfixError(f"{file.path}: its weights are not those that it was saved with: damaged or edited")
    return record


def convert_as(model: nn.Module, plan: Plan, path: str | Path) -> None:
    """Repeat the steps of a plan; on a model that is converted, see that they are the same.

    Raises:
        AliasfixError: other steps were carried out on it, or these do not fit; it is left as it was.
    """
    done = surgery.executed(model)
    if done is not None:
        if done.recipe != plan.recipe:
            difference: str | None = recipe_difference(plan.recipe, done.recipe)
        else:
            difference = steps_difference(plan, done)
        if difference is not None:
            raise AliasfixError(f"{path} and the model given were converted differently: {difference}")
        return
    try:
        with explaining("they cannot be carried out"):
            surgery.apply(model, plan)
    except AliasfixError as error:
        raise AliasfixError(f"the steps in {path} do not fit {type(model).__name__}: {error}") from error


def base_of(model: nn.Module) -> tuple[str | None, dict[str, Any]]:
    """The base of a model, as far as it says it: what `load` and timm leave on it."""
    known = model.__dict__.get(BASE)
    if known is not None:
        base, args = known
        return base, {**args, **timm_config.current_args(model, base)}
    return timm_config.base_of(model)


def remember(model: nn.Module, record: Record) -> None:
    """Leave on a model where it came from, and how its images are prepared, for `save`."""
    model.__dict__[BASE] = record.base, record.base_args
    if record.images is not None:
        known.remember(model, record.images, "from its config.json")


def rebuild(base: str, args: Mapping[str, Any]) -> nn.Module:
    """A base without weights, on the meta device where its factory can."""
    source = models.find(base)  # which imports the library: timm cannot be imported with torch 2.6 on the meta device
    try:
        with torch.device("meta"):
            return models.build(source, args, pretrained=False)
    except AliasfixError:
        return models.build(source, args, pretrained=False)


def _proven(model: nn.Module, plan: Plan, base: str, args: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The base and its arguments, shown to build this model again."""
    if base.partition(":")[0] not in LIBRARIES:
        raise AliasfixError(
            f"base={base!r}: only timm:NAME and torchvision:NAME are stored, since loading any other imports code; "
            f"leave base= out, and load with aliasfix.load(path, model=...)"
        )
    args = Record(plan, base, args).base_args  # as they come back from the file
    given = "".join(f", {key}={value!r}" for key, value in args.items())
    twin = rebuild(base, args)
    difference = _state_difference(twin, model)
    if difference is None:
        convert_as(twin, plan, base)
        difference = _module_difference(twin, model)
    if difference is not None:
        raise AliasfixError(
            f"{base}{given} does not build this model again: {difference}; give base= and base_args=, "
            f"what its factory was called with"
        )
    return base, args


def _state_difference(twin: nn.Module, model: nn.Module) -> str | None:
    ours, theirs = ({key: _shape(value) for key, value in m.state_dict().items()} for m in (model, twin))
    if missing := [key for key in ours if key not in theirs]:
        return f"it has no {listing(missing)}"
    if extra := [key for key in theirs if key not in ours]:
        return f"it has {listing(extra)}, which the model has not"
    other = [f"{key} {theirs[key]} for {shape}" for key, shape in ours.items() if shape != theirs[key]]
    return f"other shapes: {listing(other)}" if other else None


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _module_difference(twin: nn.Module, model: nn.Module) -> str | None:
    """The first layer that is another one; what only training uses (dropout) may differ."""
    ours, theirs = (_layers(m) for m in (model, twin))
    for path in (*ours, *(path for path in theirs if path not in ours)):
        one, other = ours.get(path), theirs.get(path)
        if one != other:
            return f"{path or 'the root'} is {other or 'nothing'} where the model has {one or 'nothing'}"
    return None


def _layers(model: nn.Module) -> dict[str, str]:
    described = {}
    for path, module in model.named_modules():
        name = type(module).__name__
        if "drop" not in name.lower() and not isinstance(module, nn.Identity):
            described[path] = re.sub(r" at 0x[0-9a-f]+", "", f"{name}({module.extra_repr()})")
    return described


def _build(file: Checkpoint, record: Record) -> nn.Module:
    """The base that a file names, in the types of its weights."""
    if record.base is None:
        raise AliasfixError(
            f"{file.path} does not say how its model is built: build it and call aliasfix.load(path, model)"
        )
    # on the meta device first: a file that names a giant is found out before memory is gone
    own = rebuild(record.base, record.base_args).state_dict()
    state = prefixes.match(file, own).state
    sizes = {key: value.shape for key, value in state.items() if isinstance(value, Tensor)}
    grown = [key for key, value in own.items() if key in sizes and value.shape != sizes[key]]
    if grown or not any(key in sizes for key in own):
        what = f"{listing(grown)} of other shapes" if grown else "none of its keys"
        raise AliasfixError(f"{file.path} does not hold the weights of its base {record.base}: {what}")
    model = models.build(record.base, record.base_args, pretrained=False).eval()
    types = {value.dtype for value in state.values() if isinstance(value, Tensor) and value.is_floating_point()}
    if len(types) == 1:
        return model.to(types.pop())
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        stored = state.get(key)
        if isinstance(stored, Tensor) and stored.is_floating_point():
            tensor.data = tensor.data.to(stored.dtype)
    return model


def _unrecorded(file: Checkpoint) -> str:
    if RECORD in file.content:
        return f"{file.path}: its entry {RECORD!r} is empty"
    if file.blurs:
        return (
            f"{file.path} holds weights of a model that aliasfix converted (it names {listing(sorted(file.blurs))}), "
            f"but not how: load them into a model converted by the same recipe, or save with aliasfix.save"
        )
    return f"{file.path} was not converted by aliasfix: load it as you did before, then aliasfix.convert"
