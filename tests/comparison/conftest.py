import pytest
import torch
from torch import nn

import aliasfix
from aliasfix import Comparison, FilterSweep

torch.set_num_threads(1)
QUICK = {"passes": 2, "diagonal": 4, "reach": 1, "feature_images": 5, "feature_shifts": 2}


def classifier(seed: int = 0) -> nn.Module:
    """A network that aliases: pooling, then a strided convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
        ).eval()  # fmt: skip
    with torch.no_grad():  # no class far ahead of the others, or all images would be of that one
        net[-1].weight *= 10
        net[-1].bias -= net(noise(32)[:, :, 4:20, 4:20]).mean(0)
    return net


def noise(count: int = 6, side: int = 24) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def found() -> Comparison:
    net = classifier()
    return aliasfix.compare(net, aliasfix.convert(net), noise(), size=16, margin=8, **QUICK)


@pytest.fixture(scope="session")
def labelled() -> Comparison:
    net, labels = classifier(), torch.tensor([0, 1, 2, 3, 4, 0])
    return aliasfix.compare(net, aliasfix.convert(net), [(noise(), labels)], size=16, margin=8, **QUICK)


@pytest.fixture(scope="session")
def swept() -> FilterSweep:
    return aliasfix.compare_filters(classifier(), ["rect2", "tri3"], noise(), size=16, margin=8, **QUICK)
