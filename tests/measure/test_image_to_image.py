import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aliasfix.measure import circular, label_agreement, output_variation, stability, total_variation


class Coarse(nn.Module):
    """Keeps every second pixel and repeats it: shifts with its input by even shifts only."""

    def forward(self, x):
        return x[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)


class Resized(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return F.interpolate(self.conv(x), scale_factor=self.scale, mode="bilinear")


def resized(scale):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Resized(scale)


def drawn(images, passes, seed):
    random = torch.Generator().manual_seed(seed)
    for image in images:
        dh, dw = (torch.randint(side, (passes,), generator=random).tolist() for side in images.shape[-2:])
        yield image, list(zip(dh, dw, strict=True))


@pytest.mark.parametrize("scale", [0.25, 1, 2])
def test_stability_agrees_with_a_plain_loop(scale, photos):
    model = resized(scale).double()
    photos = photos[..., :20].double()
    found = stability(model, photos, peak=2, passes=3, seed=5, batch_size=3)
    for value, (image, shifts) in zip(found, drawn(photos, 3, 5), strict=True):
        total = 0.0
        with torch.no_grad():
            for dh, dw in shifts:
                own = circular(model(image[None]), dh * scale, dw * scale).flatten().tolist()
                again = model(image.roll((dh, dw), (1, 2))[None]).flatten().tolist()
                error = sum((a - b) ** 2 for a, b in zip(own, again, strict=True)) / len(own)
                total += 10 * math.log10(4 / error) if error else math.inf
        assert float(value) == pytest.approx(total / 3, rel=1e-6)


@pytest.mark.parametrize("scale", [0.25, 1, 2])
def test_label_agreement_agrees_with_a_plain_loop(scale, photos):
    model = resized(scale)
    photos = photos[..., :20]
    found = label_agreement(model, photos, passes=2, seed=5, batch_size=3)
    for value, (image, shifts) in zip(found, drawn(photos, 2, 5), strict=True):
        equal = 0
        with torch.no_grad():
            for dh, dw in shifts:
                own = model(image[None])[0].argmax(0).tolist()
                again = model(image.roll((dh, dw), (1, 2))[None])[0].argmax(0).tolist()
                for i in range(40):
                    for j in range(20):
                        a = own[int((i - dh) % 40 * scale)][int((j - dw) % 20 * scale)]
                        equal += a == again[int(i * scale)][int(j * scale)]
        assert float(value) == pytest.approx(equal / 1600, abs=1e-6)
    assert 0.2 < found.mean() < 1


def test_equivariant_model_is_wholly_stable(photos):
    def model(x):
        return 2 * x.roll(3, 2)

    assert stability(model, photos).tolist() == [math.inf] * 4
    assert label_agreement(model, photos).tolist() == [1] * 4


def test_known_stability_of_a_model_that_sees_every_second_pixel():
    board = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 4).expand(50, 1, 8, 8)
    found = stability(Coarse(), board, passes=1, seed=0)
    # ones against zeros, or the same: an error of 1 at peak 1 is 0 dB
    assert set(found.tolist()) == {0.0, math.inf}
    odd = torch.tensor([(dh + dw) % 2 for _, [(dh, dw)] in drawn(board, 1, 0)])
    assert torch.equal(found == 0, odd == 1)
    # one channel: its sign is the label
    assert torch.equal(label_agreement(Coarse(), board, passes=1, seed=0) == 0, odd == 1)


def test_seed_decides_and_batch_size_does_not(photos):
    for measure in (stability, label_agreement):
        found = measure(Coarse(), photos, seed=1)
        assert torch.allclose(found, measure(Coarse(), photos, seed=1, batch_size=1), atol=1e-4)
        assert not torch.allclose(found, measure(Coarse(), photos, seed=2), atol=1e-4)


def test_total_variation_by_hand():
    image = torch.tensor([[[1.0, 3.0, 0.0], [2.0, 2.0, 5.0]]])
    # rows: |2−1|, |2−3|, |5−0|; columns: |3−1|, |0−3|, |2−2|, |5−2|
    assert float(total_variation(image)) == pytest.approx(7 / 3 + 8 / 4)
    assert total_variation(torch.full((2, 3, 4, 4), 7.0)).tolist() == [0, 0]


def test_total_variation_of_outputs(photos):
    photos = photos.double()
    model = resized(1).double()
    found = output_variation(model, photos, batch_size=3)
    for value, image in zip(found, photos, strict=True):
        x = model(image[None])[0].tolist()
        down = [abs(c[i + 1][j] - c[i][j]) for c in x for i in range(39) for j in range(40)]
        across = [abs(c[i][j + 1] - c[i][j]) for c in x for i in range(40) for j in range(39)]
        assert float(value) == pytest.approx(sum(down) / len(down) + sum(across) / len(across), abs=1e-6)
