"""Cut a part out of images, signals or maps."""

from collections.abc import Sequence

from torch import Tensor


def cut(image: Tensor, part: Sequence[tuple[int, int]]) -> Tensor:
    """The part of an image between two ends on each of its last axes, as many as there are ends.

    >>> import torch
    >>> cut(torch.arange(8).reshape(2, 4), [(1, 3)])
    tensor([[1, 2],
            [5, 6]])
    """
    slices = [slice(low, high) for low, high in part]
    return image[(..., *slices)]  # type: ignore[index]  # torch's own hints have no * behind ...


def centre(image: Tensor, side: int, axes: int) -> Tensor:
    """The centre of an image, as long on each of its last axes.

    >>> import torch
    >>> centre(torch.arange(5), 3, 1)
    tensor([1, 2, 3])
    """
    starts = [(n - side) // 2 for n in image.shape[-axes:]]
    return cut(image, [(start, start + side) for start in starts])
