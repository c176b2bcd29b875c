"""Image-to-image networks: both ways of a U-Net come closer to equivariance."""

import pytest
import torch
from equivariance import MODELS, circular, distances
from pix2pix import UNetGenerator
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.layers.blur import BlurUpsample
from aliasfix.layers.functional import blur_upsample


@pytest.mark.filterwarnings("ignore::aliasfix.LatticeWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_distance_from_equivariance_falls_with_tri3_and_further_with_bin5(name):
    found = distances(MODELS[name], size=32 if name == "pix2pix U-Net" else 64)
    assert found["bin5"] < found["tri3"] < found["delta1"]
    assert found["tri3"] < 0.7 * found["delta1"]


def test_every_way_up_and_down_of_the_pix2pix_generator_is_converted():
    plan = aliasfix.inspect(UNetGenerator(), example_input=torch.ones(1, 3, 32, 32), stem="full")
    assert [step.op for step in plan.converted] == ["conv2d"] * 4 + ["conv_transpose2d"] * 4
    assert plan.kept == ()


def test_circular_transposed_convolution_is_equivariant_as_delta1():
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(3, 2, 4, 2, 1)
    wrapped = aliasfix.convert(model, "delta1", padding="circular", example_input=torch.ones(1, 3, 8, 8))
    x = torch.randn(1, 3, 8, 8)
    moved = wrapped(torch.roll(x, (1, 3), (-2, -1)))
    torch.testing.assert_close(moved, torch.roll(wrapped(x), (2, 6), (-2, -1)))
    torch.testing.assert_close(wrapped(x)[..., 2:-2, 2:-2], model(x)[..., 2:-2, 2:-2])


@pytest.mark.parametrize("rate", [2, 3, 4])
def test_rect2_in_the_place_of_nearest_is_nearest(rate):
    x = torch.randn(2, 3, 5, 6)
    for padding in ("reflect", "replicate", "zero", "circular"):
        up = BlurUpsample("rect2", (rate, rate), padding=padding)
        torch.testing.assert_close(up(x), F.interpolate(x, scale_factor=rate))


def test_bin4_in_the_place_of_nearest_is_bilinear_inside():
    x = torch.randn(1, 2, 8, 9)
    up = BlurUpsample("bin4", (2, 2))(x)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up[..., 2:-2, 2:-2], bilinear[..., 2:-2, 2:-2])


@pytest.mark.parametrize("taps", [(1.0,), (0.5, 0.5), (0.25, 0.5, 0.25), (0.1, 0.2, 0.3, 0.4)])
def test_upsampling_is_zero_insertion_and_a_correlation(taps):
    x = torch.randn(1, 1, 7)
    m, rate = len(taps), 3
    zeros = torch.zeros(1, 1, 21)
    zeros[..., ::rate] = x
    before = (m + rate - 2) // 2
    padded = F.pad(zeros, (before, m - 1 - before))
    expected = F.conv1d(padded, rate * torch.tensor(taps)[None, None])
    torch.testing.assert_close(blur_upsample(x, torch.tensor(taps), (rate,), "zero"), expected)


def test_average_replace_puts_the_filter_in_the_place_of_nearest():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 3))
    converted = aliasfix.convert(model, "rect2", average="replace", example_input=torch.ones(1, 3, 9, 9))
    assert any(isinstance(module, BlurUpsample) for module in converted.modules())
    x = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(converted(x), model(x))


def test_circular_helper_leaves_nothing_zero_padded():
    assert all(m.padding_mode == "circular" for m in circular(UNetGenerator()).modules() if isinstance(m, nn.Conv2d))
