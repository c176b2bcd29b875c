"""What the tests share: images, weights that let a fault show, and how far two outputs are apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

needs_onnx = pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 cannot export batch normalization to ONNX")


def draw(model: nn.Module, x: Tensor | None = None, seed: int = 0) -> nn.Module:
    """Draw every weight whose fresh value would hide a fault, in place; the model is left in eval mode.

    Fresh norms are the identity, and fresh layer scales and gains are 0 or 1e-6, so that whole branches have
    no effect. Here gains, norm weights and layer scales lie 0.2 to 0.5 away from 1, biases are normal, and
    every matrix and convolution kernel has the standard deviation that keeps the signal's scale (He et al.,
    ICCV 2015). With ``x`` the running statistics are those of the model on it, then moved; without, drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape).uniform_(low, high, generator=generator).to(like)

    def normal(like: Tensor, deviation: float) -> Tensor:
        return torch.empty(like.shape).normal_(0, deviation, generator=generator).to(like)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.numel() == max(weight.shape, default=1):
                bias = name.endswith(("bias", "beta", "mean"))
                sign = uniform(weight, -1, 1).sign()
                weight.copy_(normal(weight, 0.3) if bias else 1 + sign * uniform(weight, 0.2, 0.5))
            elif name.endswith("weight"):
                wanted, deviation = (2 / weight[0].numel()) ** 0.5, weight.std()
                weight.copy_(normal(weight, wanted)) if deviation == 0 else weight.mul_(wanted / deviation)
        norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
        if x is None:
            for norm in norms:
                norm.running_mean.copy_(normal(norm.running_mean, 0.3))
                norm.running_var.copy_(uniform(norm.running_var, 0.5, 2))
            return model.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.train()(x)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.zero_()
            norm.running_mean.add_(normal(norm.running_mean, 0.2) * norm.running_var.sqrt())
            norm.running_var.mul_(uniform(norm.running_var, 0.6, 1.6)).add_(1e-3)
    return model.eval()


def images(
    batch: int = 2,
    size: tuple[int, int] = (64, 72),
    *,
    channels: int = 3,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """White Gaussian images, the same for the same arguments."""
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scale_error(original: Any, other: Any) -> float:
    """The largest absolute difference, relative to the largest absolute value of the original.

    Both may be tensors, or tuples, lists and dicts of them; they must agree in structure, shape and dtype.
    The error is NaN if any value is.
    """
    pairs = list(_pairs(original, other))
    assert pairs, "there is nothing to compare"
    scale = max(a.abs().max() for a, _ in pairs)
    assert scale > 0, "the original's output is all zero, which compares nothing"
    return float(torch.stack([(a - b).abs().max() for a, b in pairs]).max() / scale)


def _pairs(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        yield a.detach().double(), b.detach().double()
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            yield from _pairs(a[key], b[key])
    elif isinstance(a, Sequence):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            yield from _pairs(one, other)
