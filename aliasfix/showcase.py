"""What ``aliasfix demo`` shows: a trained network with every filter, on images that come as packages, offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import demo
from .comparison import FilterSweep, compare_filters
from .errors import AliasfixError

PAGE = Path("aliasfix-demo.html")
FILTERS = ("rect2", "tri3", "bin4", "bin5")


class Named:
    """Images, with or without labels, and what they are called."""

    def __init__(self, images: Sequence[Tensor], names: Sequence[str], labels: Sequence[int] | None = None) -> None:
        self.images, self.names, self.labels = images, names, labels

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, int]]:
        return iter(self.images) if self.labels is None else iter(zip(self.images, self.labels, strict=True))


def run() -> tuple[str, FilterSweep]:
    """What is shown, and what was found.

    Raises:
        AliasfixError: neither the network and photographs nor scikit-learn's digits are installed.
    """
    try:
        network, (names, photographs) = demo.network(), zip(*demo.images(), strict=True)
    except AliasfixError:
        return digits()
    images = Named(photographs, names)
    return "EfficientNet-Lite0 with its ImageNet weights on eight photographs", compare_filters(
        network, FILTERS, images, margin=demo.MARGIN, passes=2, diagonal=8, reach=1, feature_images=5, feature_shifts=4
    )


def digits(count: int = 100, epochs: int = 6) -> tuple[str, FilterSweep]:
    """A small network trained on scikit-learn's digits, shown on those it was not trained on.

    Args:
        count: how many it is measured on.
        epochs: passes over the others.

    Raises:
        AliasfixError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise AliasfixError(
            f'the demo needs {error.name}, which is not installed: pip install "aliasfix[demo]"'
        ) from None
    found = load_digits()
    pixels = torch.tensor(found.images).float()[:, None] / 8 - 1
    images = F.pad(F.interpolate(pixels, scale_factor=3, mode="bilinear"), (8, 8, 8, 8), value=-1)  # (N, 1, 40, 40)
    labels = torch.tensor(found.target)
    network = _train(images[:-count], labels[:-count], epochs)
    names = [f"digit {number + 1}" for number in range(count)]
    shown = Named(list(images[-count:]), names, labels[-count:].tolist())
    return f"A small network trained on scikit-learn's digits, on {count} others", compare_filters(
        network, FILTERS, shown, size=32, margin=8, passes=5, diagonal=8, feature_shifts=4, batch_size=64
    )


def _train(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), 4e-3)
        for _ in range(epochs):
            for chosen in torch.split(torch.randperm(len(images)), 64):
                top, left = torch.randint(9, (2,)).tolist()
                optimizer.zero_grad()
                loss = F.cross_entropy(network(images[chosen, :, top : top + 32, left : left + 32]), labels[chosen])
                torch.autograd.backward(loss)
                optimizer.step()
    return network.eval()
