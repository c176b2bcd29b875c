"""How rough the filters are that a network has learned."""

from __future__ import annotations

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def filter_variation(model: nn.Module) -> dict[str, float]:
    """Normalised total variation of the kernels of each convolution.

    Σ |difference of neighbouring taps, along every spatial axis| / Σ |taps|, over all kernels of the layer.
    Scaling the weights changes nothing; smooth kernels have little. Layers of one tap have no neighbours and
    are left out.

    Returns:
        By name of the layer, in order. In [0, 2d] for d spatial axes; 0 for constant kernels. A layer of
        zeros has nan.

    Source: Ruderman et al. 2018 (arXiv:1804.04438), where it tracks stability to deformation; Zhang 2019
    (ICML), supplementary material, compares it with and without anti-aliasing.

    >>> import torch
    >>> conv = nn.Conv2d(1, 1, 2, bias=False)
    >>> _ = conv.load_state_dict({"weight": torch.tensor([[[[1.0, -1.0], [1.0, 1.0]]]])})
    >>> filter_variation(nn.Sequential(conv, nn.ReLU()))
    {'0': 1.0}
    """
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS) and module.weight[0, 0].numel() > 1:
            weight = module.weight.detach().double()
            total = sum(weight.diff(dim=axis).abs().sum() for axis in range(2, weight.ndim))
            found[name] = float(total / weight.abs().sum())
    return found
