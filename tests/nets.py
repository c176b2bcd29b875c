"""Small networks whose sampling is hard to reach: functional, shared, in place."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A strided branch and a functional average for the shortcut, which this module owns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.norm(self.conv(x)), inplace=True)
        return branch + F.avg_pool2d(x, 3, 2, padding=1)


class Net(nn.Module):
    """A functional pool owned by the root, one owned by a child, an activation and a pool called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, 2, 1)
        self.norm2 = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.block = Block(8)
        self.fc = nn.Linear(8, 10)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.stem(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        x = self.act(self.norm2(self.conv(x)))
        return self.pool(self.block(self.pool(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.forward_features(x).mean((2, 3)))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        self.fc = nn.Linear(8, num_classes)


class Lambda(nn.Module):
    """A forward that is a function of the module and its input, and layers for it to use."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def tri3(x: Tensor) -> Tensor:
    """The triangle filter at stride 2 with reflected borders, written out."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    kernel = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])
