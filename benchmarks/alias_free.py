"""What alias-free layers cost, beside the published ones, and what alias-free networks keep on shifted digits.

python benchmarks/alias_free.py cost           layers and networks on a CPU
python benchmarks/alias_free.py digits         a small network trained to the end by every method
python benchmarks/alias_free.py photographs    EfficientNet-Lite0, not retrained

Each writes results/alias-free-NAME.json.

The published layers are written here from their formulas: AFC's polynomial takes twice the samples by whole Fourier
transforms, and filters by a transform forth and back (Michaeli et al., CVPR 2023); StyleGAN3's is that of the
package alias-free-torch, whose filters are 12 x 12 taps.
"""

import copy
import sys

import digits
import pictures
import torch
from provenance import write
from timing import interleaved
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.layers import IdealPool
from aliasfix.layers.nonlinear import Filtered, Polynomial
from aliasfix.showcase import network

SHAPES = {"64 x 56 x 56": (4, 64, 56, 56), "256 x 14 x 14": (4, 256, 14, 14)}


class PublishedPolynomial(nn.Module):
    """Up by 2 with zeros in the spectrum, the polynomial, an ideal low-pass, every second sample."""

    def __init__(self, layer):
        super().__init__()
        self.coefficients, self.axes, self.channel = layer.coefficients, layer.axes, layer.channel

    def forward(self, function, x):
        axes = self.axes
        lengths = [x.shape[axis] for axis in axes]
        x = _spectral(x, axes, [2 * n for n in lengths])
        a, b, c = (row.reshape(-1, *[1] * (-self.channel - 1)) for row in self.coefficients)
        x = a + b * x + c * x * x
        return _spectral(x, axes, lengths)


class PublishedPool(nn.Module):
    """An ideal low-pass by a transform forth and back, and every s-th sample."""

    def __init__(self, layer):
        super().__init__()
        self.rate, self.stride, self.axes = layer.rate, layer.stride, layer.axes

    def forward(self, x, start=None, size=None):
        spectrum = torch.fft.fftn(x, dim=self.axes)
        for axis, rate in zip(self.axes, self.rate, strict=True):
            n = x.shape[axis]
            keep = torch.fft.fftfreq(n, 1 / n).abs() < n / (2 * rate)
            spectrum = spectrum * keep.reshape(-1, *[1] * (-axis - 1))
        x = torch.fft.ifftn(spectrum, dim=self.axes).real
        index = [slice(None)] * x.dim()
        for axis, stride in zip(self.axes, self.stride, strict=True):
            index[axis] = slice(None, None, stride)
        return x[tuple(index)]


def _spectral(x, axes, sizes):
    """Resample by whole complex transforms, one axis at a time."""
    for axis, size in zip(axes, sizes, strict=True):
        n = x.shape[axis]
        spectrum = torch.fft.fftshift(torch.fft.fft(x, dim=axis), dim=axis)
        keep = (min(n, size) - 1) // 2
        kept = spectrum.narrow(axis, n // 2 - keep, 2 * keep + 1)
        before = size // 2 - keep
        flat = [0, 0] * (-axis - 1) + [before, size - before - 2 * keep - 1]
        spectrum = torch.fft.ifftshift(F.pad(kept, flat), dim=axis)
        x = torch.fft.ifft(spectrum, dim=axis).real * (size / n)
    return x


def published(model):
    """A converted model with the published layers in the place of ours."""
    kinds = {Polynomial: PublishedPolynomial, IdealPool: PublishedPool}
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if type(child) in kinds:
                handle = child.__dict__.get("handle")
                module._modules[name] = kinds[type(child)](child)
                module._modules[name].handle = handle
    return model


def cost():
    """Milliseconds of layers and of networks, in turns, on one thread."""
    import timm
    from alias_free_torch.act import Activation2d

    found = {"layers": {}, "networks": {}}
    cpu = torch.device("cpu")
    for name, shape in SHAPES.items():
        x = torch.randn(shape)
        polynomial = Polynomial((-2, -1), -3, shape[1], (0.1, 0.5, 0.2))
        theirs = PublishedPolynomial(polynomial)
        kaiser, ideal, act = Filtered("kaiser", (-2, -1)), Filtered("ideal", (-2, -1)), Activation2d(nn.ReLU())
        assert (polynomial(None, shifted(x, 0, 0)) - theirs(None, shifted(x, 0, 0))).abs().max() < 1e-4
        runs = {
            "relu": lambda x=x: x.relu(),
            "polynomial": lambda x=x, layer=polynomial: layer(None, x),
            "polynomial, published": lambda x=x, layer=theirs: layer(None, x),
            "filtered, ideal": lambda x=x, layer=ideal: layer(torch.relu, x),
            "filtered, kaiser": lambda x=x, layer=kaiser: layer(torch.relu, x),
            "filtered, alias-free-torch": lambda x=x, layer=act: layer(x),
        }
        with torch.no_grad():
            found["layers"][name] = interleaved(runs, cpu, 1, 8)
        print(name, {key: value["ms"] for key, value in found["layers"][name].items()}, flush=True)
    for name in ("convnext_atto", "tf_efficientnet_lite0"):
        net, x = timm.create_model(name, pretrained=False).eval(), torch.randn(2, 3, 224, 224)
        afc = aliasfix.convert(net, method="afc", example_input=x)
        models = {"original": net, "afc": afc, "afc, published layers": published(copy.deepcopy(afc))}
        models["stylegan3"] = aliasfix.convert(net, method="stylegan3", example_input=x)
        with torch.no_grad():
            runs = {key: (lambda x=x, model=model: model(x)) for key, model in models.items()}
            found["networks"][name] = interleaved(runs, cpu, 1, 25)
        print(name, {key: value["ms"] for key, value in found["networks"][name].items()}, flush=True)
    write("alias-free-cost", "python benchmarks/alias_free.py cost", found)


def shifted(x, down, right):
    """Images moved circularly by a fraction of a pixel, without their Nyquist frequencies."""
    for axis, by in ((-2, down), (-1, right)):
        n = x.shape[axis]
        frequencies = torch.fft.fftfreq(n, 1 / n).reshape(-1, *[1] * (-axis - 1))
        turn = torch.exp(-2j * torch.pi * frequencies * by / n) * (frequencies.abs() * 2 != n)
        x = torch.fft.ifft(torch.fft.fft(x, dim=axis) * turn, dim=axis).real
    return x


METHODS = {
    "original": None,
    "blur": {"filter": "bin5", "padding": "circular", "stem": "full"},
    "afc": {"method": "afc"},
}
EPOCHS, SEEDS, TESTED, REACH = 12, (0,), 100, 2


class Small(nn.Sequential):
    """Three convolutions of 8, 16 and 24 channels with two strides of 2 and ReLUs, on 32 x 32 pixels."""

    def __init__(self):
        layers, before = [], 1
        for after, stride in ((8, 1), (16, 2), (24, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, digits.CLASSES))


def trained(name, seed, batch=64):
    """The small network, converted and then trained from its first weights, on digits at random places."""
    torch.manual_seed(seed)
    model, options = Small(), METHODS[name]
    if options is not None:
        model = aliasfix.convert(model, example_input=torch.ones(1, 1, digits.SIDE, digits.SIDE), **options)
    (images, labels), _ = digits.digits(seed)
    generator = torch.Generator().manual_seed(seed)
    steps = EPOCHS * -(-len(images) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images), generator=generator).split(batch):
            loss = F.cross_entropy(model(digits.placed(images[part], generator)), labels[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def certified(model, seed):
    """Percent of digits that are right as they are, and at every shift of a grid: whole pixels, halves, fractions."""
    images, labels = digits.placed_test(seed)
    images, labels = shifted(images[:TESTED], 0, 0), labels[:TESTED]
    whole = [(a, b) for a in range(-REACH, REACH + 1) for b in range(-REACH, REACH + 1)]
    random = (2 * REACH * torch.rand(25, 2, generator=torch.Generator().manual_seed(0)) - REACH).tolist()
    grids = {"clean": [(0, 0)], "whole": whole, "half": [(a / 2, b / 2) for a, b in whole], "fractional": random}
    right = {
        name: torch.stack([model(shifted(images, *by)).argmax(1) == labels for by in grid]).all(0)
        for name, grid in grids.items()
    }
    return {name: round(100 * found.float().mean().item(), 1) for name, found in right.items()}


def on_digits():
    """The table of the four adversaries for every method, the mean of the seeds."""
    found = {}
    for name in METHODS:
        runs = [certified(trained(name, seed), seed) for seed in SEEDS]
        found[name] = {"mean": {key: round(sum(r[key] for r in runs) / len(runs), 1) for key in runs[0]}, "runs": runs}
        print(name, found[name]["mean"], flush=True)
    setting = {"epochs": EPOCHS, "seeds": SEEDS, "images": TESTED, "reach": REACH}
    write("alias-free-digits", "python benchmarks/alias_free.py digits", setting | {"methods": found})


@torch.no_grad()
def photographs():
    """EfficientNet-Lite0 without retraining: agreement with the original, and how far shifts move the logits."""
    original, (known, other) = network(), pictures.halves(0)
    images = pictures.view(pictures.crops(other, 3, 1), 16, 16)
    wanted, found = top(original, images), {}
    options = {
        "original": None,
        "ideal": {"filter": "ideal"},
        "ideal, filtered": {"filter": "ideal", "activation": "filtered"},
        "stylegan3": {"method": "stylegan3"},
        "ideal, polynomial, fitted": {"filter": "ideal", "activation": "polynomial"},
    }
    for name, given in options.items():
        model = original if given is None else aliasfix.convert(original, **given)
        if given is not None and given.get("activation") == "polynomial":
            aliasfix.fit_polynomials(model, pictures.varied(known, 2, 0))
        agreement = (top(model, images) == wanted).float().mean().item()
        still = model(images[::3])
        moves = [(model(shifted(images[::3], *by)) - still).std() / still.std() for by in ((1, 0), (0.37, 1.61))]
        found[name] = {"agreement": round(100 * agreement, 1), "moves": [round(m.item(), 3) for m in moves]}
        print(name, found[name], flush=True)
    write("alias-free-photographs", "python benchmarks/alias_free.py photographs", {"networks": found})


def top(model, images):
    """The class of every image."""
    return torch.cat([model(part).argmax(1) for part in images.split(10)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"cost": cost, "digits": on_digits, "photographs": photographs}[sys.argv[1]]()
