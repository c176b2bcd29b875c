"""Fine-tune a converted network: `aliasfix.finetune`."""

import copy
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .. import surgery
from ..calibration.calibration import reference
from ..errors import AliasfixError
from ..families.reading import Output
from ..files.record import digest_of_weights
from ..images.known import Given, prepared, remember, said
from ..running import modes_kept
from ..text.progress import tell
from ..text.wording import one_line
from . import data as loaders
from . import seeds, state
from .losses import Objective
from .result import Finetuning
from .run import Run

_NEEDED = ("accelerate", "timm", "torchvision", "tensorboard")


def finetune(
    model: nn.Module,
    data: "str | Path | DataLoader[Any]",
    out: str | Path,
    *,
    original: nn.Module | None = None,
    validation: "str | Path | DataLoader[Any] | float | None" = None,
    distillation: float | None = None,
    temperature: float = 1.0,
    consistency: float = 0.0,
    epochs: int = 10,
    batch_size: int = 32,
    lr: float = 1e-4,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    warmup_epochs: float = 0.0,
    ema: float | None = None,
    mixed_precision: str | None = None,
    batch_statistics: bool = False,
    size: int | None = None,
    preprocessing: Given = None,
    augmentation: Mapping[str, Any] | None = None,
    workers: int = 0,
    seed: int = 0,
    save_every: int | None = None,
    resume: bool = False,
    output: Output = None,
) -> Finetuning:
    """Fine-tune a network on images, with their labels, from the original's output, or both.

    The loss is (1 − d) · cross-entropy + d · T² · KL(original ‖ model) + c · (KL both ways between two random shifts by
    up to 8 pixels). The model ends with the best weights seen, which are its own if nothing was better: the most
    accurate on the images held out, the most in agreement with the original where labels are not trained on; without
    images held out, the last. ``out`` gets them as ``best.safetensors``, for `aliasfix.load`, with ``metrics.csv``,
    TensorBoard's events and ``state.pth``, from which a killed run goes on.

    That is for a classifier. Of label maps all three terms are means over the positions, the labels masks (B, H, W), in
    which 255 does not count, and the best has the best mean IoU. Of values the squared difference as a share of the
    variance takes the place of KL. Of objects the maps of backbone and neck are distilled as values, and the labels are
    the targets of the network's own losses. Maps at two shifts are compared where both see the image.

    Everything drawn depends on the seed and the step alone: a run that was killed and resumed ends, on a CPU, with
    the same weights bit for bit, and two processes get the images that one would. Under ``accelerate launch`` the
    batch is shared by the processes.

    Args:
        model: what `aliasfix.convert` returned, or any module that returns logits (B, classes); trained in place.
        data: a folder of images, of class folders where they have labels; or a `DataLoader` of float images
            (B, C, H, W), alone or with classes (B,), masks (B, H, W), or for each image a dict of the objects in it.
        out: the folder of the run; made if it is missing.
        original: what to distil from; a copy of the model as it is given, reverted, by default. Of a model that was
            calibrated or fine-tuned it has to be given.
        validation: images held out, a folder or a loader, or the share of the folder; a tenth of it by default.
        distillation: d, 0 … 1; 1 needs no labels. By default ½, and 1 without labels.
        temperature: of the distillation; 4 to 8 teach more of few images than 1.
        consistency: c, 0 or more.
        epochs: passes over the images.
        batch_size: images of a step, over all processes. A loader has its own.
        lr: the largest learning rate.
        optimizer: a name of timm's.
        weight_decay: of the weights, not of biases and norms.
        schedule: of the learning rate, a name of timm's, or ``none``.
        warmup_epochs: in which the learning rate grows.
        ema: decay of the moving average of the weights, such as 0.999, which is then what is kept.
        mixed_precision: ``no``, ``bf16`` or ``fp16``; what accelerate is configured to by default.
        batch_statistics: let BatchNorm use and update the statistics of the batch. By default they stay as they
            are: better with few images, and the loss does not depend on how the processes share a batch.
        size: pixels; the model's own by default. Of a folder only.
        preprocessing: how a folder's images are prepared, see `aliasfix.compare`; ``best.safetensors`` keeps it. Your
            own transform stands in the place of timm's augmentation, too.
        augmentation: options of ``timm.data.create_transform`` for training, such as ``{"scale": (0.3, 1)}``. Of a
            folder only.
        workers: processes that load images. Of a folder only.
        seed: of everything that is drawn.
        save_every: steps between two states on the disk; once an epoch by default.
        resume: go on where the run in ``out`` ended; begin if there is none.
        output: what the network returns, where it is of no family that is known, see `aliasfix.compare`.

    Returns:
        A `Finetuning`: the epochs, the best of them; prints as a table.

    Raises:
        AliasfixError: an option, images or labels that cannot be used, before anything is trained; later, a loss
            that is not finite, with its step, or no memory left, with what to lower. The model then has the best
            weights so far.

    Warns:
        UserWarning: names the images that cannot be read, which are skipped.
        DoubtWarning: the original gives nearly all images one class, or is no better than chance at their labels.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.

    >>> import tempfile, aliasfix
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    >>> model = aliasfix.convert(net, example_input=torch.ones(1, 3, 8, 8))
    >>> images = DataLoader(torch.rand(8, 3, 8, 8), batch_size=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     aliasfix.finetune(model, images, folder, epochs=2).best.step
    4
    """
    _check(model, data, distillation, temperature, consistency, epochs, batch_size, lr, ema, seed, save_every)
    from accelerate import Accelerator, DataLoaderConfiguration, PartialState

    shared = DataLoaderConfiguration(
        split_batches=PartialState().num_processes > 1, use_seedable_sampler=True, data_seed=seed
    )
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, dataloader_config=shared)
    except ValueError as error:
        raise AliasfixError(
            f"accelerate does not take mixed_precision={mixed_precision!r}: {one_line(error)}"
        ) from None
    folder = Path(out)
    stored = state.read(folder, resume)
    chosen = said(preprocessing, size)
    how, given = prepared(model, chosen), chosen.to_dict()
    if isinstance(data, str | Path):
        if accelerator.is_main_process:
            tell(f"images: {data}, {how}")
        remember(model, chosen, "as given")
    found = loaders.load(
        data, validation, distillation != 1, accelerator,
        batch_size=batch_size, how=how, augmentation=augmentation, workers=workers, seed=seed,
    )  # fmt: skip
    if not found.labelled and distillation not in (None, 1):
        raise AliasfixError("there are no labels: distillation=1 learns from the original alone")
    share = distillation if distillation is not None else 0.5 if found.labelled else 1.0
    teacher = _original(model, original).to(accelerator.device) if share else None
    plan = surgery.executed(model)
    padding = plan.recipe.padding if plan else "reflect"
    objective = Objective(model, teacher, share, consistency, padding, temperature)
    identity = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer, "weight_decay": weight_decay,
        "schedule": schedule, "warmup_epochs": warmup_epochs, "ema": ema, "distillation": share,
        "temperature": temperature, "consistency": consistency, "size": given.pop("size", None), "seed": seed,
        "mixed_precision": accelerator.mixed_precision,
        "preprocessing": given or None,
        "batch_statistics": batch_statistics, "augmentation": repr(augmentation), "steps an epoch": len(found.train),
        "the original's weights": digest_of_weights(teacher.state_dict()) if teacher else None,
    }  # fmt: skip
    if stored is not None:
        state.compare(folder, stored["identity"], identity)
    with seeds.kept(), modes_kept(model):
        run = Run(folder, objective, found, accelerator, identity, save_every, output)
        run.check()
        return run.train(stored)


def _check(
    model: nn.Module,
    data: object,
    distillation: float | None,
    temperature: float,
    consistency: float,
    epochs: int,
    batch_size: int,
    lr: float,
    ema: float | None,
    seed: int,
    save_every: int | None,
) -> None:
    """Refuse what is wrong whatever the images are."""
    for library in _NEEDED:
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            raise AliasfixError(
                f'finetune needs {error.name}, which is not installed: pip install "aliasfix[finetune]"'
            ) from None
    if not isinstance(data, str | Path | DataLoader):
        raise AliasfixError(f"data is a folder's path or a torch DataLoader, not a {type(data).__name__}")
    for name, value, fine, what in (
        ("distillation", distillation, distillation is None or 0 <= distillation <= 1, "between 0 and 1"),
        ("temperature", temperature, temperature > 0, "above 0"),
        ("consistency", consistency, consistency >= 0, "0 or more"),
        ("epochs", epochs, epochs >= 1, "1 or more"),
        ("batch_size", batch_size, batch_size >= 1, "1 or more"),
        ("lr", lr, lr > 0, "above 0"),
        ("ema", ema, ema is None or 0 < ema < 1, "between 0 and 1, such as 0.999"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("save_every", save_every, save_every is None or save_every >= 1, "1 or more"),
    ):
        if not fine:
            raise AliasfixError(f"{name} must be {what}, not {value}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise AliasfixError("no parameter of the model has requires_grad: there is nothing to train")
    if half := {p.dtype for p in parameters if p.dtype in (torch.float16, torch.bfloat16)}:
        raise AliasfixError(f"the weights are {half.pop()}: call model.float(), and give mixed_precision= instead")


def _original(model: nn.Module, original: nn.Module | None) -> nn.Module:
    """A copy of the network to distil from, in eval mode."""
    if original is not None:
        teacher = copy.deepcopy(original)
    else:
        teacher = reference(model) if surgery.executed(model) is not None else copy.deepcopy(model)
    return teacher.eval().requires_grad_(False)
