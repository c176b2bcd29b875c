"""Maps that somebody else's blur has low-passed already are sampled as they are."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix

BLURRED = "Its input is blurred already"


def binomial(*sizes: int) -> Tensor:
    """The product of binomial filters, of sum 1: (m₁, …)."""
    rows = {1: [1.0], 2: [1.0, 1.0], 3: [1.0, 2.0, 1.0], 4: [1.0, 3.0, 3.0, 1.0]}
    kernel = torch.ones(())
    for size in sizes:
        kernel = kernel[..., None] * torch.tensor(rows[size])
    return kernel / kernel.sum()


class Blurred(nn.Module):
    """A blur at stride 1, written out in one of several ways, then what samples."""

    def __init__(self, way: str, sample: nn.Module, trained: bool = False, act: bool = False, size: int = 3) -> None:
        super().__init__()
        self.way, self.sample, self.act = way, sample, act
        self.register_buffer("kernel", binomial(size, size))
        if trained:
            self.kernel = nn.Parameter(self.kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, self.way)(x)
        out: Tensor = self.sample(F.relu(x) if self.act else x)
        return out

    def depthwise(self, x: Tensor) -> Tensor:
        """The kernel repeated for each channel (ffcv, composer)."""
        return F.conv2d(x, self.kernel.repeat(x.shape[1], 1, 1, 1), stride=1, padding=1, groups=x.shape[1])

    def like_the_input(self, x: Tensor) -> Tensor:
        """A kernel made on the way, of the input's type (kornia)."""
        row = torch.tensor([1.0, 2.0, 1.0], device=x.device)
        kernel = (row[:, None] * row / 16).repeat(x.shape[1], 1, 1, 1).to(x)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])

    def in_the_batch(self, x: Tensor) -> Tensor:
        """Channels in the batch, the result cropped and permuted (StyleGAN2)."""
        n, c, h, w = x.shape
        kernel = torch.flip(self.kernel, [0, 1])[None, None]
        out = F.conv2d(F.pad(x.reshape(n * c, 1, h, w), [2, 2, 2, 2]), kernel).permute(0, 2, 3, 1)
        return out[:, ::1, ::1, :].view(n, c, h + 2, w + 2)[:, :, 1:-1, 1:-1]

    def separable(self, x: Tensor) -> Tensor:
        """One axis after the other."""
        for shape in ((1, 1, 3, 1), (1, 1, 1, 3)):
            kernel = binomial(3).view(shape).repeat(x.shape[1], 1, 1, 1)
            x = F.conv2d(x, kernel, padding=(shape[2] // 2, shape[3] // 2), groups=x.shape[1])
        return x

    def one_axis(self, x: Tensor) -> Tensor:
        """Rows alone."""
        kernel = binomial(3).view(1, 1, 3, 1).repeat(x.shape[1], 1, 1, 1)
        return F.conv2d(x, kernel, padding=(1, 0), groups=x.shape[1])


class EveryOther(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2, ::2]


def conv(stride: int = 2) -> nn.Module:
    return nn.Conv2d(3, 8, 3, stride, 1)


@pytest.mark.parametrize("way", ["depthwise", "like_the_input", "in_the_batch", "separable"])
@pytest.mark.parametrize("sample", [conv, EveryOther], ids=["conv", "slice"])
@pytest.mark.parametrize("stem", ["paper", "full"])
def test_what_is_blurred_is_not_blurred_again(way: str, sample: type[nn.Module], stem: str) -> None:
    (step,) = aliasfix.inspect(Blurred(way, sample()), stem=stem, example_input=torch.zeros(2, 3, 16, 18))
    assert step.action == "keep"
    assert step.reason.startswith(BLURRED)


@pytest.mark.parametrize(
    "model",
    [
        Blurred("depthwise", conv(), trained=True),
        Blurred("depthwise", conv(), act=True),
        Blurred("one_axis", conv()),
        Blurred("depthwise", nn.Conv2d(3, 8, 5, 4, 2)),
        Blurred("depthwise", nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), conv())),
    ],
    ids=["trained", "behind an activation", "one axis", "too narrow", "behind a convolution"],
)
def test_other_maps_are_blurred(model: nn.Module) -> None:
    (step,) = aliasfix.inspect(model, stem="full", example_input=torch.zeros(2, 3, 16, 18))
    assert step.action == "convert"
