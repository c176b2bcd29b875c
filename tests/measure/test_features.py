import math

import numpy as np
import pytest
import sklearn.datasets
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import aliasfix
from aliasfix.checks.laws import redraw
from aliasfix.errors import AliasfixError
from aliasfix.measure import every, feature_distance, heat_map


class BlurPool(nn.Module):
    """The paper's: dense circular max pooling, [1, 2, 1] / 4 on both axes, every second sample."""

    def forward(self, x):
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), mode="circular"), 2, 1)
        for axis in (2, 3):
            x = (x.roll(1, axis) + 2 * x + x.roll(-1, axis)) / 4
        return x[:, :, ::2, ::2]


def vgg(pool):
    """Three stages of two convolutions and a pooling, wholly circular, with norms away from 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers, before = [], 3
        for width in (8, 16, 16):
            for _ in range(2):
                norm = nn.BatchNorm2d(width)
                for parameter in (norm.weight, norm.running_var):
                    nn.init.uniform_(parameter, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -1, 0.2)
                layers += [
                    nn.Conv2d(before, width, 3, padding=1, padding_mode="circular"),
                    norm,
                    nn.ReLU(inplace=True),
                ]
                nn.init.kaiming_normal_(layers[-3].weight)
                before = width
            layers.append(pool())
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def baseline(photos):
    model = vgg(lambda: nn.MaxPool2d(2))
    found = feature_distance(model, photos[:2, :, :32, :32], shifts=every(16, 16))
    return model, {name: heat_map(one.shifts, one.distance) for name, one in found.items()}, found


def test_distance_is_zero_before_the_first_subsampling_and_periodic_after(baseline):
    model, maps, found = baseline
    assert list(maps) == [str(n) for n in range(len(model))]
    period = 1
    for name, layer in model.named_children():
        period *= 2 if isinstance(layer, nn.MaxPool2d) else 1
        found_map = maps[name]
        assert found_map[::period, ::period].max() <= 1e-6
        for axis in (0, 1):
            assert (found_map - found_map.roll(period, axis)).abs().max() <= 1e-6
        if period > 1:
            off = torch.ones(16, 16, dtype=torch.bool)
            off[::period, ::period] = False
            assert found_map[off].min() > 1e-5, "the period is not shorter"
            assert (found_map - found_map.roll(period // 2, 0)).abs().max() > 1e-5
            assert found_map.max() < found[name].between < 2


def test_distance_along_the_axes_of_a_vgg_doubles_its_period_at_each_stage(photos):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = redraw(torchvision.models.vgg11_bn().features[:22]).eval().double()  # four stages: 2 x 2 in the end
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    shifts = [(float(d), 0.0) for d in range(32)]
    found = feature_distance(model, photos[:1, :, :32, :32].double(), shifts=shifts)
    period = 1
    for name, layer in model.named_children():
        period *= 2 if isinstance(layer, nn.MaxPool2d) else 1
        distance = found[name].distance
        zero = distance <= 1e-12  # in double precision: the last stages of random weights tell shifts little apart
        assert zero.tolist() == [d % period == 0 for d in range(32)]
        assert (distance - distance.roll(period)).abs().max() <= 1e-6
    assert period == 16


def trained():
    """The network and some digits that it learned to read: nine in ten of those it was not trained on."""
    digits = sklearn.datasets.load_digits()
    images = torch.tensor(digits.images).float()[:, None].expand(-1, 3, -1, -1) / 8 - 1
    images, labels = F.interpolate(images, scale_factor=2, mode="bilinear"), torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(vgg(lambda: nn.MaxPool2d(2)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        optimizer = torch.optim.Adam(model.train().parameters())
        for rate in (1e-2, 7e-3, 4e-3):
            optimizer.param_groups[0]["lr"] = rate
            for chosen in torch.split(torch.randperm(1600), 64):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(model(images[chosen]), labels[chosen]))
                optimizer.step()
        model.eval()
        with torch.no_grad():
            assert (model(images[1600:]).argmax(1) == labels[1600:]).float().mean() > 0.7
    return model[0], images[1600:1603]


@pytest.mark.parametrize("weights", ["random", "trained"])
def test_distance_is_lower_everywhere_once_converted(weights, photos):
    if weights == "random":
        model, images = vgg(lambda: nn.MaxPool2d(2)), photos[:3, :, :16, :16]
    else:
        model, images = trained()
    before = feature_distance(model, images, shifts=every(8, 8))
    for filter in ("tri3", "bin5"):
        converted = aliasfix.convert(model, filter, padding="circular", example_input=images)
        after = feature_distance(converted, images, shifts=every(8, 8))
        assert list(after) == list(before)
        period = 1
        for name, layer in model.named_children():
            period *= 2 if isinstance(layer, nn.MaxPool2d) else 1
            own, blurred = (heat_map(of[name].shifts, of[name].distance) for of in (before, after))
            moves = torch.ones(8, 8, dtype=torch.bool)
            moves[::period, ::period] = False
            assert blurred[~moves].max() <= 1e-6
            assert (blurred < own)[moves].all()
        assert period == 8


def test_distance_is_that_of_a_blur_pooling_by_hand(baseline, photos):
    model, before, _ = baseline
    images = photos[:2, :, :32, :32]
    by_hand = feature_distance(vgg(BlurPool), images, shifts=every(8, 8))
    converted = aliasfix.convert(model, "tri3", padding="circular", example_input=images)
    found = feature_distance(converted, images, shifts=every(8, 8))
    assert len(before) == len(model)
    for name in before:
        assert torch.allclose(found[name].distance, by_hand[name].distance, atol=1e-6)


def moved(features, dh, dw):
    """Shift (C, h, w) by a phase for every frequency, one at a time."""
    spectrum = np.fft.fft2(features)
    for axis, d in ((1, dh), (2, dw)):
        n = features.shape[axis]
        for k in range(n):
            frequency = k if k < (n + 1) // 2 else k - n
            phase = np.cos(np.pi * d) if 2 * k == n else np.exp(-2j * np.pi * frequency * d / n)
            index = [slice(None)] * 3
            index[axis] = k
            spectrum[tuple(index)] *= phase
    return np.fft.ifft2(spectrum).real


def cosine_distance(a, b):
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            u, v = a[:, i, j], b[:, i, j]
            lengths = np.linalg.norm(u) * np.linalg.norm(v)
            if lengths:
                total += 1 - u @ v / lengths
            else:
                total += float(np.any(u) != np.any(v))
    return total / a.shape[1] / a.shape[2]


def test_agrees_with_a_plain_loop(aliased, photos):
    model = aliased.double()
    images = photos[:3, :, :12, :8].double()
    shifts = [(0, 0), (1, 0), (3, 5), (0.5, -2)]
    layers = ["conv", "norm", "pool", "head"]
    found = feature_distance(model, images, layers=layers, shifts=shifts, batch_size=3)

    def run(x):
        with torch.no_grad():
            conv = model.conv(x[None])
            norm = model.norm(conv)
            return {"conv": conv, "norm": norm, "pool": model.pool(norm.relu()), "head": model(x[None]) / 10}

    features = [{k: v[0].numpy() for k, v in run(image).items()} for image in images]
    for layer in layers:
        for n, (dh, dw) in enumerate(shifts):
            total = 0.0
            for image, own in zip(images, features, strict=True):
                shifted = torch.tensor(moved(image.numpy(), dh, dw))
                again = run(shifted)[layer][0].numpy()
                if layer == "head":
                    total += cosine_distance(own[layer][:, None, None], again[:, None, None])
                else:
                    h, w = own[layer].shape[1:]
                    total += cosine_distance(moved(own[layer], dh * h / 12, dw * w / 8), again)
            assert float(found[layer].distance[n]) == pytest.approx(total / 3, abs=1e-6)
        pairs = [(features[i][layer], features[i + 1][layer]) for i in range(2)]
        if layer == "head":
            pairs = [(a[:, None, None], b[:, None, None]) for a, b in pairs]
        assert found[layer].between == pytest.approx(sum(cosine_distance(a, b) for a, b in pairs) / 2, abs=1e-6)


def test_equivariant_network_has_no_distance(invariant, photos):
    found = feature_distance(invariant, photos[:1, :, :8, :8])
    assert list(found) == ["conv", "head"]
    assert all(one.distance.max() <= 1e-6 for one in found.values())
    assert all(len(one.distance) == 64 for one in found.values())
    assert all(math.isnan(one.between) for one in found.values())


def test_dead_channels_are_equal_to_dead_channels():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(1, 2))
    dead = feature_distance(model, torch.full((1, 2, 4, 4), -1.0))
    assert [one.distance.max() for one in dead.values()] == [0, 0]
    half = torch.zeros(1, 1, 2, 2)
    half[..., 0, :] = 1  # one row of ones: pooled, a one; shifted down by one, a zero
    found = feature_distance(nn.MaxPool2d(1, 2), half, shifts=[(0, 0), (1, 0), (0, 1)])
    assert found[""].distance.tolist() == [0, 1, 0]


def test_every_call_of_a_shared_layer_is_told_apart():
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.MaxPool2d(1, 2), shared)
    found = feature_distance(model, torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert list(found) == ["0", "1", "0#2"]
    assert found["0"].distance.max() == 0 < found["0#2"].distance.max()


def test_layers_that_cannot_be_compared(invariant, photos):
    with pytest.raises(AliasfixError, match="the model has no layer body, tail"):
        feature_distance(invariant, photos, layers=["conv", "body", "tail"])
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(16, 4))
    with pytest.raises(AliasfixError, match=r"1 gave no tensor \(B, C\) or \(B, C, h, w\)"):
        feature_distance(tokens, photos[..., :4, :4], layers=["1"])
    assert feature_distance(tokens, photos[..., :4, :4]) == {}
    with pytest.raises(AliasfixError, match=r"images of \(8, 8\) and \(4, 4\)"):
        feature_distance(invariant, [torch.ones(3, 8, 8), torch.ones(3, 4, 4)])


def test_layers_that_are_not_of_each_input_are_left_out():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(1, 4)

    model = nn.Sequential(nn.ReLU(), Constant())
    assert list(feature_distance(model, torch.ones(1, 1, 2, 2), batch_size=3)) == ["0"]


def test_no_more_than_a_batch_at_a_time(invariant, photos):
    sizes = []
    invariant.conv.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    feature_distance(invariant, photos[:2, :, :8, :8], batch_size=10)
    assert sizes == 2 * [1, *[10] * 6, 4]


def test_layers_that_not_every_image_meets_are_left_out(photos):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.rarely = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.rarely(x) if x[0].mean() > mean else self.always(self.always(x))

    mean = photos.mean((1, 2, 3)).sort().values[1:3].mean()
    found = feature_distance(nn.Sequential(nn.Identity(), Sometimes()), photos, shifts=[(0, 1)])
    assert list(found) == ["0"]
