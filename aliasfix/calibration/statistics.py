"""Statistics matching: every channel gets the mean and the variance back that it has in the original.

A blur takes variance out of a map, and a convolution evaluated densely meets values that the strided one never did.
The weights behind were trained for other statistics: each normalisation adds a little to the error, and the
nonlinearities make it grow.

    BatchNorm         (x − μ') / σ',   σ' = σ · s,   μ' = m − (m₀ − μ) · s,   s = √(v / v₀)
    weight and bias   W' = W / s,   b' = m₀ − (m − b) / s

m, v are a channel's mean and variance over images and positions in the converted network, m₀, v₀ in the original: of
the input for a BatchNorm (whose γ and β stay, so that training goes on as before), of the output for a layer with
weight and bias. It is the first step of Nagel et al., "Data-Free Quantization through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2, with the variance, and with images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError

Normalisation = nn.modules.batchnorm._BatchNorm
AFFINE = (nn.modules.conv._ConvNd, nn.Linear, nn.LayerNorm, nn.GroupNorm)
_LEAST, _MOST = 0.1, 10.0  # how far a deviation is moved at most
_DEAD = 1e-8  # of the mean variance: a channel with less is dead on these images, and its ratio means nothing


class Moments:
    """The mean and variance of each channel over everything that was added.

    >>> moments = Moments(0)
    >>> moments.add(torch.tensor([[1.0, 2.0]])); moments.add(torch.tensor([[3.0, 6.0]]))
    >>> moments.mean, moments.var
    (tensor([3.], dtype=torch.float64), tensor([3.5000], dtype=torch.float64))
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Add values, whose channels are along the axis."""
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        axes = [axis for axis in range(x.dim()) if axis != self.axis % x.dim()]
        count = x.numel() // x.shape[self.axis]
        mean = wide.mean(axes, keepdim=True)
        squares = (wide - mean).square_().sum(axes).double()
        mean = mean.double().flatten()
        if not squares.isfinite().all():
            raise AliasfixError("its values are not finite on these images")
        total = self.count + count
        if not self.count:
            self.count, self.mean, self.squares = count, mean, squares
            return
        apart = mean - self.mean
        self.squares += squares + apart.square() * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total

    @property
    def var(self) -> Tensor:
        """(C,), the population's."""
        return self.squares / self.count


class RunningStatistics:
    """Match the input of a BatchNorm, through its running statistics."""

    def __init__(self, path: str, module: nn.Module) -> None:
        self.path = path
        self._mean, self._var = _double(module.running_mean), _double(module.running_var)
        self._original, self._converted = Moments(1), Moments(1)

    def show(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Add the original's input."""
        self._original.add(x)

    def correct(self, module: Any, x: Tensor) -> None:
        """Add the converted network's input, and set the running statistics."""
        self._converted.add(x)
        s = _ratio(self._converted.var, self._original.var)
        _set(module.running_mean, self._converted.mean - (self._original.mean - self._mean) * s)
        _set(module.running_var, ((self._var + module.eps) * s.square() - module.eps).clamp_min(0))


class Affine:
    """Match the output of a layer with one weight row and one bias for each channel."""

    def __init__(self, path: str, module: Any) -> None:
        self.path = path
        self._weight, self._bias = module.weight.detach().clone(), module.bias.detach().clone()
        self._original, self._converted = Moments(channels(module)), Moments(channels(module))

    def show(self, module: nn.Module, x: Tensor, output: Tensor) -> None:
        """Add the original's output."""
        self._original.add(output)

    def correct(self, module: nn.Module, x: Tensor) -> None:
        """Add the output under the weights as they were, and scale and shift them."""
        _set(module.weight, self._weight)
        _set(module.bias, self._bias)
        self._converted.add(type(module).forward(module, x))
        s = _ratio(self._converted.var, self._original.var)
        _set(module.weight, _double(self._weight) / s.view(-1, *[1] * (self._weight.dim() - 1)))
        _set(module.bias, self._original.mean - (self._converted.mean - _double(self._bias)) / s)


def corrections(model: nn.Module, paths: list[str]) -> list[RunningStatistics | Affine]:
    """What matches the statistics of a network: its BatchNorms', or those of all layers where there are none."""
    named = [(path, model.get_submodule(path)) for path in paths]
    norms = [(path, m) for path, m in named if isinstance(m, Normalisation) and m.running_mean is not None]
    if norms:
        return [RunningStatistics(path, module) for path, module in norms]
    affine = [(p, m) for p, m in named if isinstance(m, AFFINE) and m.weight is not None and m.bias is not None]
    return [Affine(path, module) for path, module in affine if not isinstance(module, _Transposed)]


_Transposed = nn.modules.conv._ConvTransposeNd  # its weight's rows are the input's channels


def channels(module: nn.Module) -> int:
    """The axis of a layer's output along which its channels lie."""
    last = isinstance(module, nn.Linear) or type(module).forward is nn.LayerNorm.forward
    return -1 if last else 1


def _ratio(converted: Tensor, original: Tensor) -> Tensor:
    least = _DEAD * original.mean()
    return torch.where(
        original + converted > 0, ((converted + least) / (original + least)).sqrt().clamp(_LEAST, _MOST), 1.0
    )


def _double(x: Any) -> Tensor:
    wide: Tensor = x.detach().double().clone()  # which of a double is itself
    return wide


def _set(target: Any, value: Tensor) -> None:
    target.data.copy_(value)
