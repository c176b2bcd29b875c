"""Which strided convolutions are stems: those that read the model's input."""

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix


def down(channels: int, out: int, stride: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.ReLU())


class Prepared(nn.Module):
    """Normalises, resizes, pads and mixes colours before its first convolution."""

    def __init__(self, size: int, mode: str) -> None:
        super().__init__()
        self.resize = functools.partial(F.interpolate, size=(size, size), mode=mode)
        self.colours = nn.Conv2d(3, 3, 1)
        self.stem = down(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.resize((x - 0.5) / 0.2)
        out: Tensor = self.stem(self.colours(F.pad(x, (1, 1, 1, 1))))
        return out


class Parallel(nn.Module):
    """Two convolutions read the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = down(3, 8), down(3, 8), down(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.a(x) + self.b(x))
        return out


class Recording(nn.Module):
    """An encoder of sound."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 4, 7, padding=3)
        self.down = nn.Sequential(nn.ELU(), nn.Conv1d(4, 8, 4, 2, 1), nn.ELU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.first(x))
        return out


@pytest.mark.parametrize(
    ("model", "shape", "stems", "others"),
    [
        (nn.Sequential(down(3, 8), down(8, 8)), (1, 3, 32, 32), ["0.0"], ["1.0"]),
        (nn.Sequential(down(3, 8, 1), down(8, 8), down(8, 8)), (1, 3, 32, 32), [], ["1.0", "2.0"]),
        (nn.Sequential(nn.AvgPool2d(3, 1, 1), down(3, 8)), (1, 3, 32, 32), [], ["1.0"]),
        (Prepared(32, "bilinear"), (1, 3, 40, 40), ["stem.0"], []),
        (Prepared(20, "nearest"), (1, 3, 40, 40), ["stem.0"], []),
        (Parallel(), (1, 3, 32, 32), ["a.0", "b.0"], ["c.0"]),
        (Recording(), (1, 1, 64), [], ["down.1"]),
    ],
    ids=["strided", "stride 1 first", "pool first", "prepared", "sampled", "parallel", "sound"],
)
def test_a_stem_reads_the_input(model: nn.Module, shape: tuple[int, ...], stems: list[str], others: list[str]) -> None:
    plan = aliasfix.inspect(model, example_input=torch.zeros(shape))
    steps = [step for step in plan if step.rule == "strided_conv"]
    assert [step.path for step in steps if step.reason and "It is a stem convolution" in step.reason] == stems
    assert [step.path for step in steps if step.action == "convert"] == others
    assert len(steps) == len(stems) + len(others)
