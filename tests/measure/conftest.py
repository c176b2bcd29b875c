import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)


class Invariant(nn.Module):
    """Circular convolutions, a global mean and a linear layer: no shift changes the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


class Aliased(nn.Module):
    """Strided convolution, pooling and subsampling: shifts by less than 8 pixels change the prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.norm(self.conv(x)).relu())
        # differences between positions and channels, large enough to change the predicted class
        features = features[:, :, ::2, ::2].amax((2, 3)) - features[:, :, 1::2, 1::2].amax((2, 3))
        return 10 * self.head(features)


def seeded(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind().eval()


@pytest.fixture
def invariant() -> nn.Module:
    return seeded(Invariant)


@pytest.fixture(params=[0, 1])
def aliased(request: pytest.FixtureRequest) -> nn.Module:
    return seeded(Aliased, request.param)


@pytest.fixture(scope="session")
def photos() -> torch.Tensor:
    """Four photographs, (4, 3, 40, 40), standardised, with the noise of a dark room."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    images = [torch.tensor(getattr(skimage.data, name)()[:280, :280]).permute(2, 0, 1) / 255 for name in names]
    images = F.interpolate(torch.stack(images).float(), size=40, mode="area")
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images - images.mean()) / images.std() + noise / 2


@pytest.fixture
def labels(aliased: nn.Module, photos: torch.Tensor) -> torch.Tensor:
    """What the aliased network says of the unshifted photographs, but for the last."""
    with torch.no_grad():
        return (aliased(photos).argmax(1) + torch.tensor([0, 0, 0, 1])) % 10
