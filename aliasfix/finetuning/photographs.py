"""An image folder to train on: checked before training, augmented by timm, the same images whoever loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from ..errors import AliasfixError
from ..images.folder import ImageFolder
from ..images.prepared import Prepared
from ..images.preprocessing import Transform
from ..images.reading import read
from .seeds import seed_all


class Photographs(Dataset[tuple[Tensor, int]]):
    """Files with labels, through a transform of timm's.

    What the transform draws depends on the seed, the epoch and the file alone: not on the process or worker that
    loads it, nor on what was loaded before.

    Args:
        files: the images.
        labels: an index for each, 0 where there are no labels.
        transform: of a PIL image, see `augmented`.
        mode: of PIL, ``RGB`` or ``L``.
        seed: of the transform.
    """

    def __init__(
        self, files: Sequence[Path], labels: Sequence[int], transform: Transform, mode: str, seed: int
    ) -> None:
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


def augmented(how: Prepared, augmentation: Mapping[str, Any]) -> Transform:
    """timm's transform for training.

    Args:
        how: size, mean, standard deviation and interpolation, or a transform that stands in the place of timm's.
        augmentation: what ``timm.data.create_transform`` is given beside.

    Raises:
        AliasfixError: an option that timm does not take, or any beside a transform.
    """
    from timm.data import create_transform

    if how.transform is not None:
        if augmentation:
            raise AliasfixError(f"augmentation={augmentation} is of timm's transform: do it in the one given")
        return how.transform
    mean, std = how.normalisation
    size = (how.channels, how.size, how.size)
    known = {"input_size": size, "mean": mean, "std": std, "interpolation": how.interpolation}
    try:
        made: Transform = create_transform(**{**known, "is_training": True, **augmentation})
    except (TypeError, ValueError, AssertionError) as error:
        raise AliasfixError(f"timm.data.create_transform does not take augmentation={augmentation}: {error}") from None
    return made


def listed(root: str | Path, labelled: bool) -> tuple[list[Path], list[int] | None, int | None]:
    """The images of a folder, their labels and how many classes there are; None twice without labels.

    Raises:
        AliasfixError: no such folder, or no image in it.
    """
    folder = ImageFolder(root, labelled=labelled)
    if folder.classes is None:
        return folder.files, None, None
    return folder.files, [folder.label(path) or 0 for path in folder.files], folder.classes
