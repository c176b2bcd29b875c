"""What a batch of a model's inputs looks like: which axes are the batch's, the channels' and those that are shifted."""

from __future__ import annotations

from torch import nn


def spatial_axes(model: object) -> int:
    """How many axes a model's convolutions slide along, the most of them; 2 where it has none.

    >>> spatial_axes(nn.Conv1d(1, 1, 3)), spatial_axes(nn.ReLU())
    (1, 2)
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return max((len(one.kernel_size) for one in modules if isinstance(one, nn.modules.conv._ConvNd)), default=2)


def shifted_axes(model: object, dims: int) -> int:
    """How many of the last axes of one input are space or time, of which there is at most one axis fewer than all.

    Args:
        model: whose input it is.
        dims: axes of one input, without the batch's: 3 of (C, H, W), 2 of (C, T), 1 of (T,).

    >>> shifted_axes(nn.Conv2d(1, 1, 3), 3), shifted_axes(nn.Conv2d(1, 1, 3), 1), shifted_axes(nn.Conv3d(1, 1, 3), 4)
    (2, 1, 3)
    """
    return min(spatial_axes(model), max(1, dims - 1))


def axes_of_one(model: object, dims: int, is_batch: bool = False) -> int:
    """How many axes one input has, of a tensor with so many that is one input or a batch of them.

    Args:
        model: whose input it is.
        dims: axes of the tensor.
        is_batch: whether it is known to be a batch, as what a `DataLoader` gives.

    >>> net = nn.Conv2d(1, 1, 3)
    >>> axes_of_one(net, 3), axes_of_one(net, 4), axes_of_one(net, 2, is_batch=True)
    (3, 3, 1)
    """
    return dims - 1 if is_batch or dims > spatial_axes(model) + 1 else dims
