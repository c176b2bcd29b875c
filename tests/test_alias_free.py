"""The laws of alias-free networks: no shift changes the logits, however small, and features move with the input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.checks.laws import redraw

SHIFTS = ((1, 0), (0.5, 0.5), (0.37, 1.61))
NAMES = [
    *("convnext_atto", "convnextv2_atto", "resnet18", "mobilenetv2_050", "mobilenetv3_small_050"),
    *("efficientnet_lite0", "efficientnet_b0", "regnety_002", "densenet121", "regnetx_002"),
]
QUICK = ("convnext_atto", "mobilenetv3_small_050")


def shifted(x, *by):
    """A periodic signal without its Nyquist frequencies, moved by fractions of a sample along its last axes."""
    for axis, amount in zip(range(-len(by), 0), by, strict=True):
        n = x.shape[axis]
        spectrum = torch.fft.fft(x.double(), dim=axis)
        if n % 2 == 0:
            spectrum = spectrum.index_fill(axis, torch.tensor([n // 2]), 0)
        turn = torch.exp(-2j * torch.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * amount / n)
        x = torch.fft.ifft(spectrum * turn.reshape(-1, *[1] * (-axis - 1)), dim=axis).real.to(x)
    return x


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
def alias_free(model, x, **options):
    """A model with drawn weights and the running statistics of an input, converted and fitted to it."""
    model = redraw(model).double().train()
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.numel() > parameter.shape[0]:  # as large as not to be linear
            parameter.div_(parameter.std() * parameter[0].numel() ** 0.5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    model(x)
    converted = aliasfix.convert(model.eval(), method="afc", example_input=x, **options)
    if any(key.endswith("coefficients") for key in converted.state_dict()):
        aliasfix.fit_polynomials(converted, x)
    return converted


@torch.no_grad()
def worst(model, x, equivariant=False):
    """The largest change of the output under shifts, relative to the output; after shifting back if equivariant."""
    out = model(x)
    changes = []
    for by in SHIFTS:
        axes = by[: x.dim() - 2]
        wanted = shifted(out, *axes) if equivariant else out
        changes.append(((model(shifted(x, *axes)) - wanted).abs().max() / wanted.abs().max()).item())
    assert all(change == change for change in changes)
    assert out.std() > 1e-3
    return max(changes)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_no_shift_changes_the_logits(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 64 if name in QUICK else 96, 96), 0, 0)
    net = timm.create_model(name, pretrained=False, num_classes=10)
    model = alias_free(net, x)
    assert worst(net.eval(), x) > 1e-3
    assert worst(model, x) < 1e-10
    with torch.no_grad():
        exact = model(x)
        rounding = (
            model.float()(x.float()) - exact
        ).abs().max() / exact.abs().max()  # efficientnet_b0's products amplify it
    assert worst(model, x.float()) < max(1e-5, 4 * rounding.item())


@pytest.mark.parametrize("left_out", ["filter", "activation", "norm"])
def test_each_part_is_needed(left_out):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 64, 64), 0, 0)
    without = {"filter": "tri3", "activation": "keep", "norm": "keep"}[left_out]
    model = alias_free(timm.create_model("convnext_atto", pretrained=False, num_classes=10), x, **{left_out: without})
    assert worst(model, x) > 1e-4


class OneAxis(nn.Sequential):
    """A classifier of sounds."""

    def __init__(self):
        super().__init__(
            *(nn.Conv1d(2, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.SiLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, padding=1)),
            *(nn.PReLU(8), nn.Conv1d(8, 8, 4, 2, 1), nn.GELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)),
        )


def test_of_one_axis():
    torch.manual_seed(0)
    x = shifted(draw(2, 2, 80), 0)
    assert worst(alias_free(OneAxis(), x), x) < 1e-12


class Net(nn.Module):
    """A small U-Net: a pool and a convolution down, nearest and a transposed convolution up."""

    def __init__(self):
        super().__init__()
        self.top, self.down = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.norm, self.middle = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x):
        top = F.relu(self.top(x))
        low = F.max_pool2d(F.relu(self.norm(self.down(top))), 2)
        low = F.interpolate(F.relu(self.middle(low)), scale_factor=2, mode="nearest")
        return self.out(torch.cat([top, F.relu(self.up(low))], 1))


def test_what_a_unet_returns_moves_with_its_input():
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 32, 40), 0, 0)
    net = redraw(Net()).double().eval()
    assert worst(net, x, equivariant=True) > 0.05
    model = alias_free(Net(), x)
    assert worst(model, x, equivariant=True) < 1e-12
    assert worst(model.float(), x.float(), equivariant=True) < 1e-5


@pytest.mark.slow
def test_what_a_unet_of_smp_returns_moves_with_its_input():
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 64, 96), 0, 0)
    model = alias_free(smp.Unet("resnet18", encoder_weights=None), x)
    assert worst(model, x, equivariant=True) < 1e-10


class Vocoder(nn.Module):
    """A generator of sound as HiFi-GAN's: transposed convolutions, leaky ReLUs and dilated convolutions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 16, 7, padding=3)
        self.ups = nn.ModuleList([nn.ConvTranspose1d(16, 16, 8, 4, 2), nn.ConvTranspose1d(16, 16, 4, 2, 1)])
        self.blocks = nn.ModuleList([nn.Conv1d(16, 16, 3, padding=n, dilation=n) for n in (1, 3)])
        self.last = nn.Conv1d(16, 1, 7, padding=3)

    def forward(self, x):
        x = self.first(x)
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = x + block(F.leaky_relu(x, 0.1))
        return torch.tanh(self.last(F.leaky_relu(x)))


@torch.no_grad()
def images(model, x):
    """The share of the energy of what a generator makes of a tone that is not at multiples of its frequency.

    Upsampling makes images of the tone around the multiples of the input's rate, and activations fold harmonics.
    """
    out = model(x)
    energy = torch.fft.rfft(out - out.mean(-1, keepdim=True)).abs().square().sum((0, 1))
    tone = int(torch.fft.rfft(x).abs().sum((0, 1))[1:].argmax()) + 1
    kept = torch.zeros_like(energy, dtype=torch.bool)
    kept[tone::tone] = True
    return (energy[~kept].sum() / energy[1:].sum()).item()


def test_a_vocoder_makes_fewer_images_of_a_rising_tone():
    torch.manual_seed(0)
    net = Vocoder().double().eval()
    length = 240
    shares = {"before": [], "after": []}
    model = aliasfix.convert(
        net, method="stylegan3", padding="circular", example_input=draw(1, 4, length), oversampling=2
    )
    steps = {(step.op, step.action) for step in aliasfix.report(model)}
    assert {("leaky_relu", "convert"), ("conv_transpose1d", "convert"), ("tanh", "convert")} <= steps
    for tone in (13, 29, 47, 71, 97):
        phases = torch.arange(4, dtype=torch.float64)[:, None]
        x = torch.sin(2 * torch.pi * tone * torch.arange(length, dtype=torch.float64) / length + phases)[None]
        shares["before"].append(images(net, x))
        shares["after"].append(images(model, x))
    before, after = (sum(each) / len(each) for each in shares.values())
    assert after < 0.2 * before


def test_the_laws_of_a_conversion_hold():
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 32, 40), 0, 0)
    verified = aliasfix.verify(alias_free(Net(), x), example_input=x)
    assert [(law.name, law.detail) for law in verified if not law.ok] == []
    assert any("of polynomials" in law.detail for law in verified)


def test_the_guarantee_is_for_every_shift_or_names_what_prevents_it():
    torch.manual_seed(0)
    x = shifted(draw(2, 3, 32, 40), 0, 0)
    found = aliasfix.guarantee(alias_free(Net(), x), x)
    assert (found.exact, found.fractional, found.blockers) == (True, True, ())
    assert "by fractions of a pixel" in found.verdict
    assert found.change_in_float64 < 1e-12
    filtered = aliasfix.guarantee(alias_free(Net(), x, activation="filtered"), x)
    assert not filtered.exact
    assert [blocker.op for blocker in filtered.blockers] == ["relu"]  # all of one module
    assert "activation='polynomial'" in str(filtered.blockers[0])
    maximum = aliasfix.guarantee(alias_free(Net(), x, pool="keep"), x)
    assert [(blocker.op, blocker.remedy) for blocker in maximum.blockers] == [("max_pool2d", "pool='average'")]
    published = aliasfix.guarantee(
        aliasfix.convert(Net().eval(), method="stylegan3", example_input=x.float()), x.float()
    )
    assert {"relu", "conv2d"} <= {blocker.op for blocker in published.blockers}
