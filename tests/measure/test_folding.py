import itertools
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import aliasfix
from aliasfix.edits import DenseCall
from aliasfix.errors import AliasfixError
from aliasfix.layers.batches import PART
from aliasfix.measure import aliasing, fold_over, noise


def wave(k, size=24, phase=0.3):
    return torch.cos(2 * math.pi * k * torch.arange(size) / size + phase)


@pytest.mark.parametrize(("stride", "limit"), [(1, 13), (2, 6), (3, 4), (4, 3)])
def test_what_is_at_or_above_the_new_nyquist_folds(stride, limit):
    for k in range(13):
        assert float(fold_over(wave(k)[None, None], [stride])) == pytest.approx(float(k >= limit), abs=1e-6)


def test_share_is_of_energy():
    low, high = wave(2), wave(9)
    assert float(fold_over((low + 3 * high)[None, None], [2])) == pytest.approx(0.9, abs=1e-6)
    plane = 2 * torch.outer(wave(2), wave(3)) + torch.outer(wave(9), wave(3))
    for stride, share in (([2, 2], 0.2), ([1, 2], 0), ([2, 1], 0.2), ([2, 6], 1)):
        assert float(fold_over(plane[None, None], stride)) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(("shape", "stride"), [((12, 8), (2, 2)), ((12, 9), (4, 3)), ((8, 8), (2, 1))])
def test_is_what_subsampling_does_on_average_over_its_phases(shape, stride):
    dense = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)) + 0.5
    for image, share in zip(dense.numpy(), fold_over(dense, stride), strict=True):
        spectrum = np.fft.fft2(image)
        for axis, s in enumerate(stride):
            n = shape[axis]
            for k in range(n):
                if s > 1 and min(k, n - k) / n >= 0.5 / s:
                    spectrum[(slice(None),) * (axis + 1) + (k,)] = 0
        low = np.fft.ifft2(spectrum).real
        output, folded = 0.0, 0.0
        for i, j in itertools.product(*map(range, stride)):
            keep = (slice(None), slice(i, None, stride[0]), slice(j, None, stride[1]))
            output += (image[keep] ** 2).sum()
            folded += ((image - low)[keep] ** 2).sum()
        assert float(share) == pytest.approx(folded / output, abs=1e-6)


def test_bandlimited_map_folds_nothing_and_zeros_have_no_share():
    assert fold_over(torch.ones(1, 1, 8, 8), [2, 2]).tolist() == [0]
    assert fold_over(torch.zeros(1, 1, 8, 8), [2, 2]).isnan().all()
    with pytest.raises(AliasfixError, match="has no 2 spatial axes"):
        fold_over(torch.ones(1, 1, 8), [2, 2])


class Blur(nn.Module):
    def __init__(self, stride):
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", torch.outer(*[torch.tensor([1.0, 2, 1]) / 4] * 2).expand(3, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), self.kernel, stride=self.stride, groups=3)


class Says(nn.Module):
    """Has a stride that it does not use."""

    stride = 2

    def forward(self, x):
        return x


def test_driver_finds_the_map_before_each_subsampling(photos):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "conv": nn.Conv2d(3, 4, 3, (2, 1), 1, padding_mode="circular"),
                "dense": nn.Conv2d(4, 4, 3),
                "pool": nn.MaxPool2d(3, 2, return_indices=True),
                "up": nn.ConvTranspose2d(4, 3, 2, 2),
                "blur": Blur((2, 2)),
                "average": nn.AvgPool2d(2),
                "says": Says(),
            }
        )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            x = model["pool"](model["dense"](model["conv"](x)))[0]
            x = model["blur"](model["up"](x))
            return model["says"](model["average"](model["average"](x)))

    found = aliasing(Net(), photos, batch_size=3)
    assert list(found) == ["body.conv", "body.pool", "body.blur", "body.average"]
    with torch.no_grad():
        wrap = F.pad(photos, (1, 1, 1, 1), mode="circular")
        conv = F.conv2d(wrap, model["conv"].weight, model["conv"].bias)
        pool = F.max_pool2d(model["dense"](conv[:, :, ::2]), 3, 1)
        up = model["up"](pool[:, :, ::2, ::2])
        blur = F.conv2d(F.pad(up, (1, 1, 1, 1), mode="circular"), model["blur"].kernel, groups=3)
        once = F.avg_pool2d(blur[:, :, ::2, ::2], 2, 1)
        twice = F.avg_pool2d(once[:, :, ::2, ::2], 2, 1)
    expected = {
        "body.conv": fold_over(conv, [2, 1]),
        "body.pool": fold_over(pool, [2, 2]),
        "body.blur": fold_over(blur, [2, 2]),
        "body.average": (fold_over(once, [2, 2]) + fold_over(twice, [2, 2])) / 2,
    }
    for name, shares in expected.items():
        assert torch.allclose(found[name], shares, atol=1e-6)
    assert [layer.stride for layer in model.values()] == [(2, 1), (1, 1), 2, (2, 2), (2, 2), 2, 2]


def test_calls_in_somebodys_forward_are_seen(photos):
    class Functional(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(F.max_pool2d(x, 2), 3, stride=(1, 2), padding=1)

    found = aliasing(nn.Sequential(nn.Identity(), Functional()), photos)
    dense = F.max_pool2d(photos, 2, 1)
    average = F.avg_pool2d(dense[..., ::2, ::2], 3, 1, 1)
    assert torch.allclose(found["1"], (fold_over(dense, [2, 2]) + fold_over(average, [1, 2])) / 2, atol=1e-6)


@pytest.mark.parametrize("stride", [2, 4])
def test_a_converted_same_padded_convolution_no_longer_samples(stride, photos):
    conv = timm.layers.Conv2dSame(3, 8, 5, stride=stride)
    net = nn.Sequential(conv, nn.ReLU()).eval()
    # TensorFlow's padding is that of the strided convolution: k - s in all for sizes that s divides
    left = (5 - stride) // 2
    dense = F.conv2d(F.pad(photos, (left, 5 - stride - left) * 2), conv.weight, conv.bias)
    assert torch.allclose(aliasing(net, photos)["0"], fold_over(dense, [stride] * 2), atol=1e-6)
    converted = aliasfix.convert(net, stem="full", example_input=photos)
    plan = aliasfix.report(converted)
    assert isinstance(plan.steps[0].edits[0], DenseCall), "the module keeps its stride"
    assert list(aliasing(converted, photos)) == ["1.aliasfix_blur"]


def test_an_average_with_its_blur_is_seen_as_the_blur(photos):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)).eval()
    converted = aliasfix.convert(net, example_input=photos)
    converted(photos)
    for _ in range(2):
        found = aliasing(converted, photos)
        assert list(found) == ["2.aliasfix_blur"]
        assert (found["2.aliasfix_blur"] < aliasing(net, photos)["2"]).all()


def test_what_a_plan_leaves_strided_is_seen(photos):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    converted = aliasfix.convert(net, stem="full", example_input=photos)
    assert aliasfix.report(converted).steps[0].form == "blur-first"
    found = aliasing(converted, photos)
    assert list(found) == ["2"]
    assert (found["2"] < aliasing(net, photos)["2"]).all()


def test_a_failure_leaves_nothing_behind():
    class Fails(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    model = nn.Sequential(nn.MaxPool2d(2), Fails())
    with pytest.raises(ZeroDivisionError):
        aliasing(model, noise(1, (1, 8, 8)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert list(aliasing(model[:1], noise(1, (1, 8, 8)))) == ["0"]


def test_white_noise_folds_by_area_and_a_blur_removes_it():
    plain = aliasing(nn.MaxPool2d(1, 2), noise(4, (3, 64, 64)))[""]
    # of 64 frequencies on each axis, 31 are below the new Nyquist
    assert float(plain.mean()) == pytest.approx(1 - (31 / 64) ** 2, abs=0.02)
    assert aliasing(Blur(2), noise(4, (3, 64, 64)))[""].max() < 0.5 * plain.min()


def test_noise_is_of_its_seed():
    first, again, other = (torch.stack(list(noise(3, (1, 4, 4), seed))) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_batch_too_large_to_take_at_once_is_measured_image_by_image():
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.MaxPool2d(2)).eval()
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    converted = aliasfix.convert(net, example_input=images)
    assert PART < 8 * 64 * 64 * 64, "the pool and its blur take a few images at a time"
    alone = torch.cat([aliasing(converted, image[None])["1.aliasfix_blur"] for image in images])
    assert torch.allclose(aliasing(converted, images)["1.aliasfix_blur"], alone, atol=1e-6)


class Windows(nn.Module):
    """Batches the four quarters of each image."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        quarters = x.unfold(2, 20, 20).unfold(3, 20, 20).permute(0, 2, 3, 1, 4, 5)
        return self.pool(quarters.flatten(0, 2))


class Regions(nn.Module):
    """Pools as many regions as it finds."""

    def __init__(self):
        super().__init__()
        self.pool, self.rare = nn.MaxPool2d(2), nn.MaxPool2d(2)

    def forward(self, x):
        self.rare(x) if len(x) == 1 else self.pool(torch.cat([x, x[:1]]))
        return x


def test_parts_of_images_count_for_their_image_and_regions_for_none(photos):
    found = aliasing(Windows(), photos)["pool"]
    alone = torch.cat([aliasing(Windows(), photo[None])["pool"] for photo in photos])
    assert torch.allclose(found, alone, atol=1e-6)
    regions = aliasing(Regions(), photos, batch_size=3)
    assert {name: shares.isnan().tolist() for name, shares in regions.items()} == {
        "pool": [True] * 4,
        "rare": [True] * 3 + [False],
    }
