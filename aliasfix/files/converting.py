"""Convert a file: `aliasfix.convert_file`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import surgery
from ..calibration import Calibration, calibrate
from ..conversion import convert, inspect, report
from ..errors import AliasfixError
from ..images.inputs import Images
from ..images.known import Given, remember, remembered, said
from ..images.preprocessing import Preprocessing
from ..planning.plan import Plan
from ..recipe import Recipe
from ..version import __version__
from . import checkpoint, directory, formats, models, opening, prefixes, saving, store, streaming, trained
from .checkpoint import Checkpoint
from .models import Source
from .record import LIBRARIES, Record, recipe_difference


@dataclass(frozen=True)
class ConvertedFile:
    """What `convert_file` did.

    Args:
        source: the model, as it was found.
        args: what its factory was called with.
        plan: the recipe and the steps.
        path: what was written; None where nothing in the model is converted.
        left_out: the entries of the checkpoint that were not written, such as ``optimizer``.
        calibration: of the weights, where images were given.
    """

    source: Source
    args: Mapping[str, Any]
    plan: Plan
    path: Path | None
    left_out: tuple[str, ...] = ()
    calibration: Calibration | None = None


def convert_file(
    source: str | Path | None,
    target: str | Path,
    *,
    base: str | Source | None = None,
    base_args: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    example_input: Tensor | None = None,
    images: Images | None = None,
    preprocessing: Given = None,
    stream: bool = False,
    pretrained: bool = True,
    trust: bool = False,
    parents: bool = False,
) -> ConvertedFile:
    """Convert a checkpoint: load it into its model, convert that, and write everything it held with the recipe.

    Args:
        source: a state dict, a trainer's checkpoint, ``.safetensors``, the index of several files, or a model's
            directory; None for the weights that the model's library has.
        target: a directory (``config.json`` and ``model.safetensors``), or a file in the format that its suffix names,
            such as ``.safetensors`` or ``.pth``. A file keeps the keys of the source.
        base: what builds the model: ``timm:NAME``, ``torchvision:NAME``, a name that either knows, or
            ``package.module:factory``. A model's directory says it itself.
        base_args: what the base's factory is called with; they win over those that the checkpoint names.
        recipe: the options of the conversion.
        example_input: as for `convert`.
        images: calibrate the weights on these, see `calibrate`; then the weights are written alone.
        preprocessing: how a folder's images are prepared, see `aliasfix.compare`; the file keeps it.
        stream: copy the tensors of a ``.safetensors`` file instead of loading them; a file above half of the memory is
            streamed by itself.
        pretrained: without a source, the library's weights; else random ones.
        trust: also read a pickle that holds code, which runs it.
        parents: make the directories above ``target`` that are missing.

    Returns:
        A `ConvertedFile`: what was found and written.

    Raises:
        AliasfixError: no such model, a file that cannot be read, does not fit or was converted by another recipe, or
            a target that cannot be written.

    Warns:
        NoEffectWarning: nothing in the model is converted, and nothing is written.
        UserWarning: the keys have a prefix that the model's have not; it was taken off.

    >>> import tempfile, aliasfix, torch, torchvision
    >>> net = torchvision.models.squeezenet1_1(num_classes=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine, out = f"{folder}/mine.pth", f"{folder}/out.pth"
    ...     torch.save({"model": net.state_dict(), "epoch": 7}, mine)
    ...     done = aliasfix.convert_file(mine, out, base="torchvision:squeezenet1_1", base_args={"num_classes": 3})
    ...     model, epoch = aliasfix.load(out), torch.load(out)["epoch"]
    >>> len(done.plan.converted), aliasfix.report(model).recipe == done.plan.recipe, epoch
    (3, True, 7)
    """
    recipe, args, path = recipe or Recipe(), dict(base_args or {}), Path(target)
    if images is not None and stream:
        raise AliasfixError("images= changes the weights, and stream= copies them: they exclude each other")
    if not (parents or directory.is_directory(target)):
        saving.check_file(path)
    given = None if source is None else Path(source)
    if base is None:
        base, own = _base_of(given)
        args = own | args
    found = models.find(base) if isinstance(base, str) else base
    if given is not None and images is None and (stream or streaming.is_large(given)):
        return _stream(given, path, parents, found, args, recipe, example_input, said(preprocessing))
    file = None if given is None else _same_recipe(opening.read_weights(given, trust), recipe)
    model, args = opening.build(found, args, file, pretrained)
    plan = _converted(model, recipe, example_input)
    if not plan.converted:
        return ConvertedFile(found, args, plan, None)
    _check_blurs(file, model)
    if file is not None and file.record is not None and file.record.plan.calibration is not None:
        plan = surgery.note_calibration(model, file.record.plan.calibration)
    as_directory, calibration = directory.is_directory(target), None
    form = formats.of(path)
    alone = as_directory or images is not None or not (form is not None and form.keeps_all)
    left_out = tuple(file.beside) if file is not None and alone else ()
    remember(model, said(preprocessing), "as given")
    if images is not None:
        calibration = calibrate(model.eval(), images, preprocessing=preprocessing)
        plan, file = report(model) or plan, None
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    file = file or Checkpoint(path, {"state_dict": model.state_dict()})
    store.write_converted(path, as_directory, file, model, _record(found, args, plan), example_input)
    return ConvertedFile(found, args, plan, path, left_out, calibration)


def _stream(
    given: Path,
    path: Path,
    parents: bool,
    source: Source,
    args: dict[str, Any],
    recipe: Recipe,
    example_input: Tensor | None,
    images: Preprocessing,
) -> ConvertedFile:
    """Convert a checkpoint without loading it: of a model on the meta device, with the file's tensors copied."""
    stream = streaming.open_stream(given)
    _same_recipe(stream.checkpoint, recipe)
    model = store.rebuild(str(source), args)
    opening.load_into(model, stream.checkpoint, source)
    plan = _converted(model, recipe, None if example_input is None else example_input.to("meta"))
    if not plan.converted:
        return ConvertedFile(source, args, plan, None)
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    trained.remember_images(model, stream.checkpoint)
    remember(model, images, "as given")
    record = dataclasses.replace(_record(source, args, plan), version=__version__, images=remembered(model))
    streaming.write_streamed(path, stream, record)
    return ConvertedFile(source, args, plan, path)


def _base_of(given: Path | None) -> tuple[str, dict[str, Any]]:
    """What builds the model of a directory, which says it."""
    if given is None or not directory.is_model(given):
        raise AliasfixError(f"{given or 'the model'}: name what builds the model, such as base='timm:resnet18'")
    return directory.base(given)


def _same_recipe(file: Checkpoint, recipe: Recipe) -> Checkpoint:
    """Refuse a file that was converted by another recipe."""
    if file.record is not None and file.record.plan.recipe != recipe:
        raise AliasfixError(
            f"{file.path} was converted with another recipe ({recipe_difference(file.record.plan.recipe, recipe)}): "
            f"convert the file it was made from"
        )
    return file


def _converted(model: nn.Module, recipe: Recipe, example_input: Tensor | None) -> Plan:
    """Convert a model in place; the plan, which says why where nothing is converted."""
    convert(model, recipe=recipe, example_input=example_input, inplace=True)
    return report(model) or inspect(model, recipe=recipe, example_input=example_input)


def _check_blurs(file: Checkpoint | None, model: nn.Module) -> None:
    """Weights that come from a converted model must have been under the same blurs."""
    own = model.state_dict()
    if file is not None and file.blurs and checkpoint.blurs(prefixes.match(file, own).state) != checkpoint.blurs(own):
        raise AliasfixError(
            f"{file.path} holds weights of a model that aliasfix converted at {len(file.blurs)} places, and not by "
            f"this recipe: repeat its recipe, or revert the model before saving its weights"
        )


def _record(source: Source, args: dict[str, Any], plan: Plan) -> Record:
    """What is stored with the weights: the base only where loading it imports no code of the user's."""
    stored = source.library in LIBRARIES
    return Record(plan, str(source) if stored else None, args if stored else {})
