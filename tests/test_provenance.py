"""A slice along one axis samples where the axis is spatial, and nowhere else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix


class Sliced(nn.Module):
    """A convolution, and what is done to its result."""

    def __init__(self, then: Callable[[Tensor], Tensor], axes: int = 2) -> None:
        super().__init__()
        self.conv = (nn.Conv1d, nn.Conv2d)[axes - 1](8, 8, 3, padding=1)
        self.linear, self.then = nn.Linear(8, 8), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def strides(then: Callable[..., Tensor], axes: int) -> list[tuple[int, ...]]:
    # as many channels as positions, so that sizes tell nothing
    plan = aliasfix.inspect(Sliced(then, axes), example_input=torch.zeros(2, 8, *(8,) * axes))
    return [step.stride for step in plan if step.rule == "spatial_slice"]


@pytest.mark.parametrize(
    "then",
    [
        lambda x: x.permute(0, 2, 3, 1)[:, ::2],
        lambda x: F.linear(x.movedim(1, -1), torch.ones(8, 8))[:, :, ::2],
        lambda x: x.reshape(2, 2, 4, 8, 8)[..., ::2],
        lambda x: x.unflatten(1, (2, 4)).flatten(0, 1)[:, :, ::2],
        lambda x: x[:, None, 1][..., ::2],
        lambda x: torch.cat([x, x], 1).chunk(2, 1)[0][..., ::2],
        lambda x: F.gelu(F.group_norm(x, 2)).transpose(2, 3).transpose(1, 3)[:, ::2],
        lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0)[..., ::2],
    ],
    ids=["last", "linear", "heads", "groups", "index", "chunk", "transposed", "resized"],
)
def test_an_axis_stays_spatial(then: Callable[[Tensor], Tensor]) -> None:
    assert strides(then, 2) == [(2,)]


@pytest.mark.parametrize(
    "then",
    [
        lambda x: x[:, ::2],
        lambda x: x.permute(0, 2, 3, 1)[..., ::2],
        lambda x: F.linear(x, torch.ones(8, 8))[..., ::2],
        lambda x: x.flatten(2).transpose(1, 2).reshape(2, 64, 4, 2).transpose(1, 2)[..., ::2],
        lambda x: (x.flatten(2).transpose(1, 2) @ torch.ones(8, 8))[:, :, ::2],
        lambda x: x.flatten(1)[:, ::2],
        lambda x: x.reshape(2, 8, 4, 2, 8)[:, :, :, ::2],
        lambda x: x.mean((2, 3))[:, ::2],
    ],
    ids=["channels", "channels last", "linear", "rotary", "matmul", "flat", "phases", "pooled"],
)
def test_others_are_no_sites(then: Callable[[Tensor], Tensor]) -> None:
    assert strides(then, 2) == []


def test_sound_is_thinned() -> None:
    assert strides(lambda x: x.transpose(1, 2)[:, ::4], 1) == [(4,)]
    assert strides(lambda x: x.transpose(1, 2)[..., ::4], 1) == []
