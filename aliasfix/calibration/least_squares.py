"""Least squares: a convolution is fitted to what it returns in the original.

    W' = argmin_W  ‖W X − Y₀‖² / n  +  λ · (tr X Xᵀ / n d) · ‖W − W₀‖²

X (d, n) are the patches that the convolution meets behind the blur, Y₀ (O, n) what it returns in the original at the
same positions, W₀ (O, d) its trained weights, all centred where its bias or the statistics of a normalisation take the
means up. It is the layer-wise reconstruction of He et al., "Channel Pruning for Accelerating Very Deep Neural
Networks", ICCV 2017, section 3.1, equation 5, towards the trained weights instead of 0.

The blur removes what the original aliased, so that a part of Y₀ cannot be had from X: the fit then returns less
variance than the original, the more the fewer frequencies are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aliasfix.errors import AliasfixError

Convolution = nn.modules.conv._ConvNd
SURE = 30  # λ is the inputs of an output divided by it: the more there are, the more is learned by heart
LARGEST = 2304  # inputs of one output: beyond it the normal equations take longer than a forward pass
_SAMPLES = 4  # per input of an output, over the images of a batch


class LeastSquares:
    """Fit one convolution; all its groups at once, each by its own normal equations."""

    def __init__(
        self, path: str, module: Convolution, pull: float | None = None, centred: bool | None = None, seed: int = 0
    ) -> None:
        self.path = path
        self._lambda = module.weight[0].numel() / SURE if pull is None else pull
        self._centred = module.bias is not None if centred is None else centred
        self._generator = torch.Generator().manual_seed(seed)
        self._weight = _by_group(module.weight.detach().double().clone(), module.groups)  # W₀, once it changes
        groups, outputs, inputs = self._weight.shape
        self._count = 0
        self._xx, self._yx = self._weight.new_zeros(groups, inputs, inputs), torch.zeros_like(self._weight)
        self._x, self._y = self._weight.new_zeros(groups, inputs), self._weight.new_zeros(groups, outputs)
        self._positions, self._shown = torch.zeros(0), torch.zeros(0)

    def show(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Keep the original's output at positions drawn anew for each batch."""
        assert isinstance(module, Convolution)
        places = output[0, 0].numel()
        wanted = max(1, math.ceil(_SAMPLES * self._weight.shape[2] / len(output)))
        drawn = torch.randperm(places, generator=self._generator)[: min(places, max(wanted, 256))]
        self._positions = drawn.sort().values.to(output.device)
        self._sides = output.shape[2:]
        self._shown = output.flatten(2)[:, :, self._positions]

    def correct(self, module: nn.Module, x: Tensor) -> None:
        """Add the patches at those positions, and fit the weights."""
        assert isinstance(module, Convolution)
        starts = torch.stack(torch.unravel_index(self._positions, self._sides))
        # evaluated densely, it has the original's positions among others; behind a blur that samples, its own
        stride = [own * -(-n // m) for own, n, m in zip(module.stride, sides(module, x), self._sides, strict=True)]
        for one, y in zip(x, self._shown, strict=True):
            self._add(patches(module, one, starts, stride).double(), y.double().reshape(module.groups, -1, y.shape[-1]))
        self._shown = torch.zeros(0)
        if not (self._xx.isfinite().all() and self._yx.isfinite().all()):
            raise AliasfixError("its values are not finite on these images")
        weight, bias = self._solve()
        module.weight.data.copy_(weight.reshape(module.weight.shape))
        if module.bias is not None:
            module.bias.data.copy_(bias.flatten())

    def _add(self, x: Tensor, y: Tensor) -> None:
        """Add patches (G, d, n) and outputs (G, O / G, n)."""
        self._count += x.shape[2]
        self._xx += x @ x.mT
        self._yx += y @ x.mT
        self._x += x.sum(2)
        self._y += y.sum(2)

    def _solve(self) -> tuple[Tensor, Tensor]:
        x, y = self._x / self._count, self._y / self._count
        xx, yx = self._xx / self._count, self._yx / self._count
        if self._centred:
            xx, yx = xx - x[:, :, None] * x[:, None], yx - y[:, :, None] * x[:, None]
        pull = self._lambda * xx.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        towards = xx + torch.diag_embed(pull[:, None].expand(-1, xx.shape[1]))
        weight = self._weight + torch.linalg.solve(towards, (yx - self._weight @ xx).mT).mT
        return weight, y - (weight @ x[:, :, None])[:, :, 0]


def patches(module: Convolution, x: Tensor, starts: Tensor, stride: Sequence[int]) -> Tensor:
    """What a convolution of some stride meets at some of its output's positions.

    Args:
        module: whose kernel, padding, dilation and groups count.
        x: (C, N₁, …), its input.
        starts: (axes, P), positions in the output.
        stride: per axis.

    Returns:
        (G, C / G · k₁ · …, P).

    >>> conv, x = nn.Conv2d(2, 3, 3, 2, padding=1, bias=False), torch.rand(2, 8, 8)
    >>> met = patches(conv, x, torch.tensor([[0, 2], [3, 1]]), conv.stride)
    >>> (conv.weight.flatten(1) @ met[0]).allclose(conv(x[None])[0, :, [0, 2], [3, 1]], atol=1e-6)
    True
    """
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x[None], module._reversed_padding_repeated_twice, mode=mode)[0]
    steps = [math.prod(x.shape[axis + 2 :]) for axis in range(x.dim() - 1)]
    first = sum(start * by * step for start, by, step in zip(starts, stride, steps, strict=True))
    taps = [
        sum(tap * by * step for tap, by, step in zip(at, module.dilation, steps, strict=True))
        for at in product(*map(range, module.kernel_size))
    ]
    met = x.flatten(1)[:, torch.tensor(taps, device=x.device)[:, None] + first]
    return met.reshape(module.groups, -1, met.shape[-1])


def sides(module: Convolution, x: Tensor) -> list[int]:
    """The sides of what a convolution makes of x (B, C, N₁, …).

    >>> sides(nn.Conv2d(2, 3, (3, 1), 2, padding=(1, 0)), torch.rand(1, 2, 9, 8))
    [5, 4]
    """
    pads = module._reversed_padding_repeated_twice[::-1]
    found = []
    for axis, n in enumerate(x.shape[2:]):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1)
        found.append((n + pads[2 * axis] + pads[2 * axis + 1] - reach - 1) // module.stride[axis] + 1)
    return found


def _by_group(weight: Tensor, groups: int) -> Tensor:
    """(G, O / G, d)."""
    return weight.reshape(groups, len(weight) // groups, -1)


def why_not(module: nn.Module) -> str | None:
    """Why a convolution cannot be fitted, None if it can."""
    assert isinstance(module, Convolution)
    if type(module).forward not in _FORWARDS:
        return f"its {type(module).__name__} makes its padding or weights itself"
    if (inputs := math.prod(module.weight.shape[1:])) > LARGEST:
        return f"its {inputs} inputs make normal equations that are too large"
    return None


_FORWARDS = {nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward}
