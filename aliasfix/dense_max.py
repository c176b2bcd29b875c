"""The maximum of every window of a map.

A maximum over a box is a maximum along one axis after the other, and one over k samples is made of log₂ k maxima of
two maps. Torch's own max pooling compares all samples of a window one by one, and on a CPU not in vectors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def dense_max(
    x: Tensor, kernel: Sequence[int], borders: Sequence[tuple[int, int]], dilation: Sequence[int] | None = None
) -> Tensor:
    """Max pooling at stride 1, over (before, after) samples of −∞ at the borders of the last axes.

    Shape:
        (*, N₁, …) → (*, N₁ + before + after - dilation · (kernel - 1), …)

    >>> dense_max(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), [3], [(1, 1)])
    tensor([[3., 3., 3., 2.]])
    """
    if any(map(any, borders)):
        x = F.pad(x, [n for border in reversed(borders) for n in border], value=-torch.inf)
    for axis, length in enumerate(kernel):
        dim, spacing, covered = axis - len(kernel), 1 if dilation is None else dilation[axis], 1
        while covered < length:
            step = min(covered, length - covered)
            size = x.shape[dim] - step * spacing
            x = torch.maximum(x.narrow(dim, 0, size), x.narrow(dim, step * spacing, size))
            covered += step
    return x
