"""Fit the polynomials of a network to the activations whose place they took, from images without labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import AliasfixError
from .layers.nonlinear import Polynomial
from .running import evaluating

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fitted:
    """The fit of one polynomial layer.

    Args:
        path: the layer.
        error: the root of the mean squared error on the images, as a share of the deviation of the activation.
    """

    path: str
    error: float


def fit_polynomials(
    model: nn.Module, images: Tensor, *, prior: float = 0.1, widen: float = 2.0, limit: float = 1.5
) -> tuple[Fitted, ...]:
    """Fit every polynomial of a converted network to its activation, in place, in one pass without a gradient.

    The layers are fitted in the order in which they run, each to the activation of what it gets from those fitted
    before it. The polynomial of a channel is the least-squares fit on what the channel is on the images, and, to a
    part, on a normal distribution around it: ``prior=1, widen=1`` is the projection on Hermite's polynomials.

    Args:
        model: a network converted with ``activation="polynomial"``.
        images: one batch, prepared as the network's input: (N, …). A few dozen are enough.
        prior: the weight of the normal distribution, above 0 and at most 1. It keeps a polynomial close to its
            activation where the images had no values.
        widen: its deviation, as a multiple of the channel's on the images.
        limit: maps that deviate by more than so many deviations of the images, as root mean square over their
            positions, are scaled down to that.

    Returns:
        The error of each fit.

    Raises:
        AliasfixError: the model has no polynomials, ``prior`` is out of range, or what reaches a polynomial is not
            finite.

    >>> from aliasfix import convert
    >>> net = convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), activation="polynomial")
    >>> [fit.path for fit in fit_polynomials(net, torch.randn(8, 3, 12, 12))]
    ['1.aliasfix_blur']
    """
    layers = {module: path for path, module in model.named_modules() if isinstance(module, Polynomial)}
    if not layers:
        raise AliasfixError('the model has no polynomials: convert it with activation="polynomial" first')
    if not 0 < prior <= 1:
        raise AliasfixError(f"prior={prior}: give a weight above 0 and at most 1")
    found: list[Fitted] = []

    def fit(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, Polynomial)
        function, x = args
        found.append(Fitted(layers[layer], _fit(layer, function, x, prior, widen, limit)))

    hooks = [layer.register_forward_pre_hook(fit) for layer in layers]
    try:
        with evaluating(model):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(found)


def _fit(layer: Polynomial, function: Activation, x: Tensor, prior: float, widen: float, limit: float) -> float:
    """Set the coefficients and the bounds of a layer for an input, and return the error."""
    rows = x.movedim(layer.channel, 0).flatten(1).double()
    deviation, mean = torch.std_mean(rows, 1)
    if not bool(torch.isfinite(deviation).all()):
        raise AliasfixError("what reaches a polynomial is not finite: give fit_polynomials a smaller limit=")
    spread = deviation.clamp_min(0.05 * float(deviation.square().mean().sqrt()) + 1e-12)
    wanted = function(x).movedim(layer.channel, 0).flatten(1).double()
    z = (rows - mean[:, None]) / spread[:, None]
    normal = widen * torch.linspace(-6, 6, 601, dtype=torch.float64, device=x.device)
    weights = torch.softmax(-((normal / widen) ** 2) / 2, 0)
    values = _at(layer, function, x, mean[:, None] + spread[:, None] * normal)
    seen, assumed = _moments(z, wanted, None), _moments(normal.expand(len(mean), -1), values, weights)
    gram, right = ((1 - prior) * a + prior * b for a, b in zip(seen, assumed, strict=True))
    b0, b1, b2 = torch.linalg.solve(gram, right).unbind(-1)  # of 1, z and z²
    a2 = b2 / spread**2
    coefficients = torch.stack([b0 - b1 * mean / spread + a2 * mean**2, b1 / spread - 2 * a2 * mean, a2])
    layer.coefficients.copy_(coefficients)
    layer.bounds.copy_(torch.stack([mean, limit * spread]))
    error = (b0[:, None] + b1[:, None] * z + b2[:, None] * z * z - wanted).square().mean().sqrt()
    return float(error / wanted.std().clamp_min(1e-12))


def _moments(z: Tensor, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the normal equations of each channel, (C, 3, 3) and (C, 3), for the basis 1, z, z²."""
    powers = torch.stack([z**0, z, z * z], 1)
    weighted = powers / z.shape[1] if weights is None else powers * weights
    return weighted @ powers.mT, (weighted @ values[..., None])[..., 0]


def _at(layer: Polynomial, function: Activation, x: Tensor, places: Tensor) -> Tensor:
    """Return the function of (C, n) places, which are given to it in the axes of ``x``."""
    axis = layer.axes[-1]
    shape = [1] * x.dim()
    shape[layer.channel], shape[axis] = places.shape
    first = layer.channel < axis
    values = function((places if first else places.T).reshape(shape).to(x.dtype)).double()
    return values.reshape(places.shape) if first else values.reshape(places.T.shape).T
