"""What a blur does to networks whose sampling drops nothing: those that put every phase of a map into channels.

python benchmarks/gathers.py    trains each on scikit-learn's digits, and measures each way to convert it

Agreement is with the network as it was trained, on digits that it has not seen; consistency is over circular shifts.
The last network removes noise; its figure is the peak signal-to-noise ratio in dB.
"""

import digits
import torch
from provenance import write
from torch import nn
from torch.nn import functional as F

import aliasfix

SEEDS = 1  # a seed takes two minutes
NOISE = 0.5


class Focus(nn.Module):
    """Four slices side by side (YOLOv5)."""

    def forward(self, x):
        return torch.cat([x[..., a::2, b::2] for b in (0, 1) for a in (0, 1)], 1)


class Haar(nn.Module):
    """Four slices, added and subtracted: the orthonormal Haar transform."""

    def forward(self, x):
        a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
        return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


class Merging(nn.Module):
    """Four slices of a channels-last map, a LayerNorm and a linear layer (Swin)."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 4 * width, bias=False)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = torch.cat([x[:, a::2, b::2, :] for b in (0, 1) for a in (0, 1)], -1)
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)


GATHERS = {
    "Focus": lambda width: Focus(),
    "pixel_unshuffle": lambda width: nn.PixelUnshuffle(2),
    "Haar": lambda width: Haar(),
    "patch merging": Merging,
}


def classifier(gather):
    """A gather of the image, one of a map, and a max pool."""

    def block(before, after):
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    first = nn.Sequential(gather(1), block(4, 16)) if gather is not Merging else block(1, 16)
    return nn.Sequential(
        first, block(16, 16), gather(16), block(64, 48), nn.MaxPool2d(2), block(48, 48), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(48, digits.CLASSES),
    )  # fmt: skip


class Denoiser(nn.Module):
    """Works on the unshuffled image and shuffles back (FFDNet)."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(4, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.PixelUnshuffle(2))
        self.features = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), *layers[1:], nn.Conv2d(32, 4, 3, padding=1))
        self.up = nn.PixelShuffle(2)

    def forward(self, x):
        return x - self.up(self.features(self.body(x)))


def noisy(images, seed):
    """With Gaussian noise."""
    return images + NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


def denoiser(seed):
    """A trained denoiser."""
    torch.manual_seed(seed)
    (images, _), _ = digits.digits()
    images = digits.placed(images, torch.Generator().manual_seed(seed))
    model = Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(6):
        for number, clean in enumerate(images.split(64)):
            optimizer.zero_grad()
            F.mse_loss(model(noisy(clean, 1000 * epoch + number)), clean).backward()
            optimizer.step()
    return model.eval()


@torch.inference_mode()
def signal(model):
    """The peak signal-to-noise ratio on the test, in dB; the peak is 3."""
    clean, _ = digits.placed_test()
    return 10 * (9 / F.mse_loss(model(noisy(clean, 7)), clean)).log10().item()


@torch.inference_mode()
def agreement(model, original, images):
    """The share of images that both give one class."""
    return (model(images).argmax(1) == original(images).argmax(1)).float().mean().item()


def ways(model, images, view):
    """The model as trained, and as converted in each way."""
    yield "as trained", model
    for filter in ("delta1", "tri3"):
        for gather in ("keep", "blur"):
            yield f"{filter}, {gather}", aliasfix.convert(model, filter, example_input=view, gather=gather)
            if filter == "tri3":
                converted = aliasfix.convert(model, filter, example_input=view, gather=gather)
                aliasfix.calibrate(converted, images, model)
                yield f"{filter}, {gather}, calibrated", converted


def classifiers(seed):
    """Agreement and consistency of every classifier, in per cent."""
    test, _ = digits.placed_test()
    (given, _), _ = digits.digits()
    images = digits.placed(given[:256], torch.Generator().manual_seed(seed))
    for name, gather in GATHERS.items():
        digits.NETWORKS[name] = lambda gather=gather: classifier(gather)
        model = digits.train(name, seed)
        for way, converted in ways(model, images, test[:2]):
            yield (
                (name, way),
                (
                    100 * agreement(converted, model, test),
                    100 * digits.consistency(converted, test[:100], 4),
                ),
            )


def denoisers(seed):
    """The signal-to-noise ratio of a denoiser, in dB."""
    model, (clean, _) = denoiser(seed), digits.placed_test()
    for gather in ("as trained", "keep", "blur"):
        converted = model
        if gather == "blur":
            converted = aliasfix.convert(model, "tri3", example_input=clean[:2], exclude="up", gather=gather)
        yield ("denoiser", gather), (signal(converted),)


def main():
    """Train, convert, measure."""
    torch.set_num_threads(1)
    found = {}
    for seed in range(SEEDS):
        for (name, way), figures in (*classifiers(seed), *denoisers(seed)):
            found.setdefault(name, {}).setdefault(way, []).append([round(figure, 1) for figure in figures])
            print(name, way, *found[name][way][-1], flush=True)
    write("gathers", "python benchmarks/gathers.py", {"networks": found})


if __name__ == "__main__":
    main()
