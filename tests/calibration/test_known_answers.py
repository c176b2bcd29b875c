"""Networks whose calibration is known: one cosine for each channel, which a filter scales by its response."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix
from aliasfix.calibration.least_squares import LeastSquares, patches
from aliasfix.calibration.passes import correct
from aliasfix.calibration.statistics import Moments

SIDE, FREQUENCIES = 16, (1, 2, 3, 4)
GAINS = torch.tensor([math.cos(math.pi * f / SIDE) ** 2 for f in FREQUENCIES], dtype=torch.float64)
"""The response of tri3, [1, 2, 1] / 4, to the frequencies along one axis: cos²(πf)."""

OFFSETS = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64)


@pytest.fixture
def cosines() -> Tensor:
    """(48, 4, 16, 16): each channel is d + a · cos of its frequency along the rows; a and phase are the image's."""
    random = torch.Generator().manual_seed(0)
    phase, amplitude = torch.rand(2, 48, 4, 1, 1, generator=random, dtype=torch.float64)
    rows = 2 * math.pi * torch.arange(SIDE, dtype=torch.float64)[:, None] / SIDE
    angle = torch.tensor(FREQUENCIES)[:, None, None] * rows + 2 * math.pi * phase
    return (OFFSETS[:, None, None] + (1 + amplitude) * torch.cos(angle)).expand(-1, -1, -1, SIDE).clone()


def subsampling(behind: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A network that keeps every second sample, and it converted on a torus, where the blur comes first."""
    keep = nn.Conv2d(4, 4, 1, 2, groups=4, bias=False)
    model = nn.Sequential(keep, behind).double().eval().requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    for tensor in (*behind.parameters(), *behind.buffers()):
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=random)
    nn.init.ones_(keep.weight)
    example = torch.ones(2, 4, SIDE, SIDE, dtype=torch.float64)
    return model, aliasfix.convert(model, "tri3", padding="circular", stem="full", example_input=example)


@pytest.mark.parametrize("batch_size", [64, 7])
def test_running_statistics_take_up_what_the_blur_takes_away(cosines: Tensor, batch_size: int) -> None:
    model, converted = subsampling(nn.BatchNorm2d(4))
    assert (converted(cosines) - model(cosines)).abs().max() > 0.1
    found = aliasfix.calibrate(converted, cosines, method="statistics", batch_size=batch_size)
    assert (converted(cosines) - model(cosines)).abs().max() < 1e-6
    norm, before = converted[1], model[1]
    assert torch.allclose((norm.running_var + norm.eps) / (before.running_var + norm.eps), GAINS**2, rtol=1e-6)
    assert torch.equal(norm.weight, before.weight)
    assert norm.num_batches_tracked == before.num_batches_tracked
    assert found.after.error < 1e-10 < 0.05 < found.before.error


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 4, 1, groups=4), nn.GroupNorm(2, 4)], ids=["depthwise convolution", "norm"]
)
def test_without_batch_norm_weight_and_bias_give_every_channel_its_mean_and_variance(
    cosines: Tensor, layer: nn.Module
) -> None:
    model, converted = subsampling(layer)
    aliasfix.calibrate(converted, cosines, method="statistics")
    fit = cosines[[n for n in range(len(cosines)) if n % 4 != 3]]
    wanted, found = (net(fit).movedim(1, 0).flatten(1) for net in (model, converted))
    assert torch.allclose(found.mean(1), wanted.mean(1), atol=1e-7)
    assert torch.allclose(found.var(1), wanted.var(1), rtol=1e-6)
    if isinstance(layer, nn.Conv2d):
        assert (converted(cosines) - model(cosines)).abs().max() < 1e-6
        assert torch.allclose(converted[1].weight.flatten() * GAINS, model[1].weight.flatten(), rtol=1e-6)


def test_least_squares_recovers_what_is_linear(cosines: Tensor) -> None:
    model, converted = subsampling(nn.Conv2d(4, 6, 1))
    fit = LeastSquares("1", converted[1], pull=1e-12)
    correct(model, converted, [fit], cosines.split(16))
    assert (converted(cosines) - model(cosines)).abs().max() < 1e-6
    assert torch.allclose(converted[1].weight[:, :, 0, 0] * GAINS, model[1].weight[:, :, 0, 0], rtol=1e-6)
    weight = model[1].weight[:, :, 0, 0]
    assert torch.allclose(converted[1].bias, model[1].bias + (weight - weight / GAINS) @ OFFSETS, atol=1e-6)


CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 4, 3, padding=1, bias=False),
    "grouped": nn.Conv2d(6, 4, 3, groups=2),
    "depthwise, strided": nn.Conv2d(6, 12, 3, 2, 1, groups=6),
    "dilated, one axis strided": nn.Conv2d(6, 4, (3, 2), (1, 2), (2, 0), dilation=(2, 1)),
    "reflected, same": nn.Conv2d(6, 4, 3, padding="same", padding_mode="reflect"),
    "1d": nn.Conv1d(6, 4, 3, 2, padding=1, padding_mode="circular"),
    "3d": nn.Conv3d(6, 4, (1, 2, 3), padding=(0, 1, 1)),
}


@pytest.mark.parametrize("pull", [0.0, 0.7])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_least_squares_is_the_regression_of_numpy(name: str, pull: float) -> None:
    original = CONVOLUTIONS[name].double().requires_grad_(False)
    axes = len(original.kernel_size)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(9, 6, *(7 if axes < 3 else 5,) * axes, generator=random, dtype=torch.float64)
    seen = x + torch.randn(x.shape, generator=random, dtype=torch.float64)
    model = type(original)(
        6, original.out_channels, original.kernel_size, original.stride, original.padding, original.dilation,
        original.groups, original.bias is not None, original.padding_mode, dtype=torch.float64,
    ).requires_grad_(False)  # fmt: skip
    trained = [parameter.clone() for parameter in model.parameters()]
    fit = LeastSquares("", model, pull)
    fit.show(original, x, original(x))
    fit.correct(model, seen)

    # the regression written out: a column for each weight, made by a convolution with that weight alone
    columns = []
    for index in range(trained[0][0].numel()):
        one = type(original)(
            6, original.groups, original.kernel_size, original.stride, original.padding, original.dilation,
            original.groups, False, original.padding_mode, dtype=torch.float64,
        ).requires_grad_(False)  # fmt: skip
        one.weight.zero_().view(original.groups, -1)[:, index] = 1
        columns.append(one(seen).movedim(1, 0).flatten(1))
    for group in range(original.groups):
        xs = torch.stack([column[group] for column in columns], 1)
        mean = xs.mean(0) if original.bias is not None else torch.zeros(xs.shape[1], dtype=torch.float64)
        xs = xs - mean
        outputs = range(group * (per := original.out_channels // original.groups), (group + 1) * per)
        weight = pull * xs.square().mean()
        rows = torch.cat([xs / len(xs) ** 0.5, weight.sqrt() * torch.eye(xs.shape[1], dtype=torch.float64)])
        for output in outputs:
            y = original(x)[:, output].flatten()
            centred = y - y.mean() if original.bias is not None else y
            right = torch.cat([centred / len(xs) ** 0.5, weight.sqrt() * trained[0][output].flatten()])
            wanted = torch.linalg.lstsq(rows, right[:, None], driver="gelsd").solution[:, 0]
            assert torch.allclose(model.weight[output].flatten(), wanted, atol=1e-9)
            if original.bias is not None:
                assert torch.isclose(model.bias[output], y.mean() - mean @ wanted, atol=1e-9)


class Shortcut(nn.Module):
    """A strided branch, evaluated densely, and a strided shortcut, which the blur samples for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.act = nn.MaxPool2d(2), nn.ReLU()
        self.branch, self.shortcut = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return self.act(self.branch(x)) + self.shortcut(x)


@pytest.mark.parametrize("side", [24, 26])
def test_a_convolution_whose_stride_the_conversion_changed_meets_the_originals_positions(side: int) -> None:
    torch.manual_seed(0)
    model = Shortcut().double().eval()
    images = torch.randn(16, 4, side, side, dtype=torch.float64)
    converted = aliasfix.convert(model, "delta1", example_input=images[:2])
    assert (converted.branch.stride, model.branch.stride) == ((1, 1), (2, 2))
    before = {name: value.clone() for name, value in converted.state_dict().items()}
    fits = [LeastSquares(name, getattr(converted, name), 0.0) for name in ("branch", "shortcut")]
    correct(model, converted, fits, images.split(8))
    for name, value in converted.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-9), name


def test_patches_are_those_of_unfold() -> None:
    x = torch.rand(6, 9, 8)
    conv = nn.Conv2d(6, 4, (3, 2), (2, 1), (1, 2), dilation=(1, 3), groups=2)
    every = F.unfold(x[None], (3, 2), (1, 3), (1, 2), (2, 1))[0].view(2, 9 * 2, -1)
    sides = conv(x[None]).shape[2:]
    at = torch.tensor([0, 7, 11, 30])
    assert torch.equal(patches(conv, x, torch.stack(torch.unravel_index(at, sides)), conv.stride), every[:, :, at])


def test_moments_do_not_depend_on_the_batches() -> None:
    x = torch.randn(10, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 + 1000
    moments = Moments(1)
    for part in x.split([1, 7, 2]):
        moments.add(part)
    assert torch.allclose(moments.mean, x.mean((0, 2)), rtol=1e-12)
    assert torch.allclose(moments.var, x.var((0, 2), correction=0), rtol=1e-9)
