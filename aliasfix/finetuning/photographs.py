"""An image folder to train on: checked before training, augmented by timm, the same images whoever loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import AliasfixError
from ..images.folder import ImageFolder
from ..images.reading import read
from .seeds import seed_all


class Photographs(Dataset[tuple[Tensor, int]]):
    """Files with labels, through a transform of timm's.

    What the transform draws depends on the seed, the epoch and the file alone: not on the process or worker that
    loads it, nor on what was loaded before.

    Args:
        files: the images.
        labels: an index for each, 0 where there are no labels.
        transform: of a PIL image, see `transform`.
        mode: of PIL, ``RGB`` or ``L``.
        seed: of the transform.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int], transform: Any, mode: str, seed: int) -> None:
        self.files, self.labels, self.transform, self.mode, self.seed = files, labels, transform, mode, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; before the loader starts its workers."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read(self.files[index], self.mode)
        seed_all(self.seed, self._epoch, index)
        return self.transform(image), self.labels[index]


def transform(model: nn.Module, size: int | None, augmentation: Mapping[str, Any] | None) -> tuple[Any, str]:
    """timm's transform for a model, and PIL's mode.

    Args:
        model: one of timm's says its input size, mean and standard deviation; else ImageNet's are taken.
        size: pixels; the model's own by default.
        augmentation: what ``timm.data.create_transform`` is given for training; None for evaluation.

    Raises:
        AliasfixError: an option that timm does not take.
    """
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(model)
    channels = config["input_size"][0]
    if size is not None:
        config["input_size"] = (channels, size, size)
    if augmentation is not None:
        # those two are of the evaluation
        config = {key: value for key, value in config.items() if key not in ("crop_pct", "crop_mode")}
    try:
        made = create_transform(**{**config, "is_training": augmentation is not None, **(augmentation or {})})
    except (TypeError, ValueError, AssertionError) as error:
        raise AliasfixError(f"timm.data.create_transform does not take augmentation={augmentation}: {error}") from None
    return made, "L" if channels == 1 else "RGB"


def listed(root: str | Path, labelled: bool) -> tuple[list[Path], list[int] | None, int | None]:
    """The images of a folder, their labels and how many classes there are; None twice without labels.

    Raises:
        AliasfixError: no such folder, or no image in it.
    """
    folder = ImageFolder(root, labelled=labelled)
    if folder.classes is None:
        return folder.files, None, None
    return folder.files, [folder.label(path) or 0 for path in folder.files], folder.classes
