"""Five small networks, VGG- to ConvNeXt-like, trained on scikit-learn's digits placed at random on 32 x 32 pixels.

python benchmarks/digits.py    trains each once, and says how accurate and how consistent it is
"""

import time

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from aliasfix import measure

SIDE, DIGIT, CLASSES = 32, 16, 10
TEST = 597  # of 1797 images
REACH = 8
EPOCHS = {"ConvNeXt": 20}


class VGG(nn.Module):
    """Convolutions with biases, no normalisation, max pooling."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, after in ((1, 16), (16, 32), (32, 48)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, CLASSES))
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):  # six convolutions without normalisation do not train otherwise
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    """Two convolutions and a shortcut; the first convolution and the shortcut are strided."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.shortcut = nn.Identity()
        if stride > 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x):
        branch = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(branch + self.shortcut(x))


class ResNet(nn.Module):
    """Strided convolutions under BatchNorm, with shortcuts."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 48, 2))
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x):
        return self.head(self.blocks(self.pool(self.stem(x))).mean((2, 3)))


def separable(before, after, stride):
    """A depthwise convolution, strided or not, and a pointwise one, each under BatchNorm and ReLU6."""
    depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
    pointwise = nn.Conv2d(before, after, 1, bias=False)
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(before), nn.ReLU6(), pointwise, nn.BatchNorm2d(after), nn.ReLU6()
    )  # fmt: skip


class MobileNet(nn.Module):
    """Strided depthwise convolutions under BatchNorm."""

    def __init__(self):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        sizes = ((16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 96, 2))
        self.features = nn.Sequential(stem, *(separable(*size) for size in sizes))
        self.head = nn.Linear(96, CLASSES)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Dense(nn.Module):
    """BatchNorm, ReLU and a convolution whose output is put beside its input."""

    def __init__(self, before, growth):
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(before), nn.ReLU()
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv(self.act(self.norm(x)))], 1)


class DenseNet(nn.Module):
    """Dense blocks with average pooling between them."""

    def __init__(self):
        super().__init__()
        layers, width = [nn.Conv2d(1, 16, 3, padding=1, bias=False)], 16
        for block in range(3):
            for _ in range(2):
                layers.append(Dense(width, 12))
                width += 12
            if block < 2:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                width //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x):
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class Wide(nn.Module):
    """A depthwise convolution, LayerNorm and an inverted bottleneck, added to the input."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm, self.act = nn.LayerNorm(width), nn.GELU()
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x):
        y = self.narrow(self.act(self.wide(self.norm(self.conv(x).movedim(1, -1)))))
        return x + y.movedim(-1, 1)


class ConvNeXt(nn.Module):
    """LayerNorm and 2 x 2 convolutions of stride 2 between stages of blocks without sampling."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(1, 16, 3, padding=1), ChannelNorm(16)]
        for before, after in ((16, 32), (32, 48)):
            layers += [Wide(before), ChannelNorm(before), nn.Conv2d(before, after, 2, 2), Wide(after)]
        layers += [ChannelNorm(48), nn.Conv2d(48, 64, 2, 2), Wide(64)]
        self.features, self.norm = nn.Sequential(*layers), nn.LayerNorm(64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.features(x).mean((2, 3))))


NETWORKS = {"ResNet": ResNet, "MobileNet": MobileNet, "DenseNet": DenseNet, "VGG": VGG, "ConvNeXt": ConvNeXt}


def digits(seed=0):
    """The digits at 16 x 16, (N, 1, 16, 16) standardised, and their labels: of training, and of the test."""
    data = load_digits()
    images = F.interpolate(torch.tensor(data.images).float()[:, None] / 16, DIGIT, mode="bilinear")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    images, labels = images[order], torch.tensor(data.target)[order]
    return (images[:-TEST], labels[:-TEST]), (images[-TEST:], labels[-TEST:])


def placed(images, generator):
    """Each digit (N, 1, 16, 16) somewhere on an empty field: (N, 1, 32, 32)."""
    field = torch.zeros(len(images), 1, SIDE, SIDE)
    for image, to, (top, left) in zip(
        images, field, torch.randint(SIDE - DIGIT + 1, (len(images), 2), generator=generator).tolist(), strict=True
    ):
        to[:, top : top + DIGIT, left : left + DIGIT] = image
    return field * 3 - 0.5


def train(name, seed, batch=64):
    """A network of a seed, trained on the digits each placed once, in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = NETWORKS[name]()
    (images, labels), _ = digits()
    images = placed(images, generator)
    epochs = EPOCHS.get(name, 10)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for part in order.split(batch)[: len(images) // batch]:
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def placed_test(seed=0):
    """The digits of the test, each placed once, and their labels."""
    _, (images, labels) = digits()
    return placed(images, torch.Generator().manual_seed(1000 + seed)), labels


def accuracy(model, images, labels):
    """The share of digits that get their class."""
    with torch.inference_mode():
        return (torch.cat([model(part) for part in images.split(128)]).argmax(1) == labels).float().mean().item()


def consistency(model, images, reach=REACH):
    """The share of pairs of circular shifts, of 0 to ``reach`` pixels on each axis, that get one class."""
    shifts = [(float(dh), float(dw)) for dh in range(reach + 1) for dw in range(reach + 1)]
    return measure.grid_consistency(measure.sweep(model, images, shifts, batch_size=128)).mean().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = Table("network", "accuracy", "consistency", "seconds", box=None)
    images, labels = placed_test()
    for name in NETWORKS:
        start = time.process_time()
        model = train(name, 0)
        seconds = time.process_time() - start
        table.add_row(
            name, f"{accuracy(model, images, labels):.1%}", f"{consistency(model, images[:200]):.1%}", f"{seconds:.0f}"
        )
    Console().print(table)
