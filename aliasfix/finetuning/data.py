"""The batches of a run: from a folder or any `DataLoader`, the same again after a kill, shared by the processes."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import AliasfixError
from ..images.prepared import Prepared
from ..images.reading import Seen, look, told
from ..text.wording import one_line
from . import photographs, seeds
from .kinds import Labels
from .photographs import Photographs

Loader = DataLoader[Any]
HELD_OUT = 0.1


@dataclass(frozen=True)
class Data:
    """What is trained on and what is held out.

    Args:
        train: a loader that accelerate prepared.
        validation: another, or None.
        labelled: whether the batches have labels.
        classes: number of class folders, None where the data do not say.
        prepared: how a folder's images are, in words.
    """

    train: Any
    validation: Any
    labelled: bool
    classes: int | None
    prepared: str | None = None


def load(
    data: str | Path | Loader,
    validation: str | Path | Loader | float | None,
    labelled: bool,
    accelerator: Any,
    *,
    batch_size: int,
    how: Prepared,
    augmentation: Mapping[str, Any] | None,
    workers: int,
    seed: int,
) -> Data:
    """The loaders of a run; see `aliasfix.finetune` for the arguments, and ``how`` the images of a folder are prepared.

    Raises:
        AliasfixError: no image, labels that are missing or of one class, or a loader that cannot be used.

    Warns:
        UserWarning: names the images that cannot be read.
    """
    if isinstance(data, DataLoader):
        if isinstance(validation, float | int):
            raise AliasfixError("validation= a share is of a folder's images: give a DataLoader, a folder or None")
        held = validation
        train, classes = data, None
        has_labels = labelled and len(_first(data)) > 1
    else:
        files, labels, classes = _readable(data, labelled, how.unreadable, accelerator)
        has_labels = labels is not None
        labels = labels or [0] * len(files)
        share = HELD_OUT if validation is None else validation
        held = share if not isinstance(share, float | int) else None
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seeds.derived(seed, seeds.SPLIT)))
        count = max(1, round(share * len(files))) if isinstance(share, float | int) and share > 0 else 0
        kept, out = order[count:].tolist(), order[:count].tolist()
        batch_size = min(batch_size, len(kept)) // accelerator.num_processes * accelerator.num_processes
        if not batch_size:
            raise AliasfixError(f"{data} has too few images: {len(files)}, {count} of them held out")
        made = photographs.augmented(how, augmentation or {})
        chosen = Photographs([files[n] for n in kept], [labels[n] for n in kept], made, how.mode, seed)
        train = DataLoader(chosen, batch_size, shuffle=True, drop_last=True, num_workers=workers)
        if out:
            held = _fixed(how, [files[n] for n in out], [labels[n] for n in out], batch_size, workers)
    if isinstance(held, str | Path):
        files, labels, others = _readable(held, has_labels, how.unreadable, accelerator)
        if classes is not None and others != classes:
            raise AliasfixError(f"{held} has {others} class folders, and {data} {classes}")
        held = _fixed(how, files, labels or [0] * len(files), batch_size, workers)
    prepared = None if isinstance(data, DataLoader) else str(how)
    held = held and _prepared(accelerator, held)
    return Data(_prepared(accelerator, train), held, has_labels, classes, prepared)


def batches(loader: Any, seed: int, epoch: int, skip: int) -> Iterator[Any]:
    """The batches of an epoch from the one numbered ``skip`` on: they depend on the seed and the epoch alone.

    Those skipped are loaded nevertheless, since a transform may draw from a generator that goes on from image to
    image; only of a folder they need not be.
    """
    from accelerate import skip_first_batches

    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    if hasattr(loader.dataset, "set_epoch"):
        loader.dataset.set_epoch(epoch)
    for owner in (loader, getattr(loader, "sampler", None), getattr(loader.batch_sampler, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seeds.derived(seed, seeds.DATA, epoch))
    first = 0
    if skip and isinstance(loader.dataset, Photographs):
        loader, first = skip_first_batches(loader, skip), skip
    seeds.seed_all(seed, seeds.DATA, epoch)
    iterator = iter(loader)
    for number in range(first, first + len(loader)):
        seeds.seed_all(seed, seeds.DATA, epoch, number)
        batch = next(iterator, None)
        if batch is None:
            raise AliasfixError(f"the loader ended after {number} batches, though its length is {len(loader)}")
        if number >= skip:
            yield batch
    next(iterator, None)  # lets accelerate see the end


def unpack(batch: Any, labelled: bool) -> tuple[Tensor, Labels]:
    """Images (B, C, H, W) of a batch, and classes (B,), masks (B, H, W) or the objects in each.

    Raises:
        AliasfixError: it is something else.
    """
    first, *rest = batch if isinstance(batch, tuple | list) else (batch,)
    if not isinstance(first, Tensor) or first.ndim != 4 or not first.is_floating_point():
        what = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
        raise AliasfixError(f"a batch is float images (B, C, H, W), alone or with labels (B,); the loader gave {what}")
    if not labelled:
        return first, None
    labels = rest[0] if rest else None
    if isinstance(labels, tuple | list) and len(labels) == len(first) and all(isinstance(one, dict) for one in labels):
        return first, list(labels)
    shapes = (first.shape[:1], first.shape[:1] + first.shape[2:])
    if not isinstance(labels, Tensor) or labels.shape not in shapes or labels.is_floating_point():
        raise AliasfixError(
            "label mismatch: the loader's labels are no class indices (B,), masks (B, H, W) or objects for each image; "
            "distillation=1 needs none"
        )
    return first, labels.long()


def _first(loader: Loader) -> tuple[Any, ...]:
    """What is in the first batch of a loader."""
    with seeds.kept():
        batch = next(iter(loader), None)
    if batch is None:
        raise AliasfixError("the loader has no batch")
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def _readable(
    root: str | Path, labelled: bool, unreadable: str, accelerator: Any
) -> tuple[list[Path], list[int] | None, int | None]:
    """The images of a folder but those that cannot be read; each process looks at its share."""
    from accelerate.utils import gather_object

    files, labels, classes = photographs.listed(root, labelled)
    if classes == 1:
        raise AliasfixError(
            f"{root} has one class folder: there is nothing to tell apart; distillation=1 learns without labels"
        )
    seen = look(files[accelerator.process_index :: accelerator.num_processes])
    bad = set(gather_object(list(seen.unreadable)))
    notes = told(Seen(tuple(bad), tuple(gather_object(list(seen.animated)))), files, root, unreadable)
    for note in notes if accelerator.is_main_process else ():
        warnings.warn(note, stacklevel=2)
    good = [n for n, path in enumerate(files) if path not in bad]
    return [files[n] for n in good], labels and [labels[n] for n in good], classes


def _fixed(how: Prepared, files: list[Path], labels: list[int], batch_size: int, workers: int) -> Loader:
    return DataLoader(Photographs(files, labels, how, how.mode, 0), batch_size, num_workers=workers)


def _prepared(accelerator: Any, loader: Loader) -> Any:
    if loader.persistent_workers:
        raise AliasfixError("persistent_workers=True keeps random states that a resumed run has not: set it to False")
    try:
        len(loader)
        return accelerator.prepare_data_loader(loader)
    except (TypeError, ValueError) as error:
        raise AliasfixError(f"accelerate cannot use the loader: {one_line(error)}") from error
