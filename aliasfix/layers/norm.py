"""Layer normalisation without aliasing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AliasFreeNorm(nn.Module):
    """The mean over the channels at each position, the variance over channels and positions (AF-LN).

    Dividing by the root of a variance at each position makes new frequencies. Divided by one number for the image, a
    shift of the map is a shift of the result.

    Args:
        axes: the spatial axes, counted from the end. The channels are the last axis.

    Source: Michaeli et al., CVPR 2023, section 3.3.

    Shape:
        unchanged.

    >>> AliasFreeNorm((-3, -2))(torch.tensor([[[[1.0, -1.0]], [[3.0, -3.0]]]]), (2,), eps=0.0).flatten()
    tensor([ 0.4472, -0.4472,  1.3416, -1.3416])
    """

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(
        self,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalise ``x``; the arguments are those of ``torch.nn.functional.layer_norm``."""
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = values - values.mean(-1, keepdim=True)
        out = centred * torch.rsqrt(centred.square().mean((*self.axes, -1), keepdim=True) + eps)
        out = out.to(x.dtype)
        out = out if weight is None else out * weight
        return out if bias is None else out + bias

    def extra_repr(self) -> str:
        """Return the spatial axes, for ``print(model)``."""
        return f"axes={self.axes}"
