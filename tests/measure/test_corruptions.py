import random

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from aliasfix.errors import AliasfixError
from aliasfix.measure import CorruptionErrors, ImageFolder, corruption_errors, mean_corruption_error

imagecorruptions = pytest.importorskip("imagecorruptions")

NAMES = ["gaussian_noise", "impulse_noise", "glass_blur", "contrast", "speckle_noise"]


@pytest.fixture(scope="module")
def raw():
    names = ("astronaut", "chelsea", "coffee")
    images = [torch.tensor(getattr(skimage.data, name)()[100:132, 200:232]).permute(2, 0, 1) for name in names]
    return list(zip(images, [0, 1, 2], strict=True))


def brightest(seen):
    def model(images):
        seen.append(images)
        return images.mean((2, 3)) - images.amax((2, 3)) / 3

    return model


def test_model_sees_what_the_package_makes(raw):
    seen = []
    found = corruption_errors(brightest(seen), raw, corruptions=NAMES, severities=[1, 5], mean=[0.1] * 3, std=[0.5] * 3)
    assert found.names == tuple(NAMES)
    assert found.wrong.shape == (5, 2, 3)
    assert len(seen) == 10
    for n, images in enumerate(seen):
        pixels = (images * 0.5 + 0.1) * 255
        assert (pixels - pixels.round()).abs().max() < 1e-3
        assert torch.equal(found.wrong.flatten(0, 1)[n], brightest([])(images).argmax(1) != torch.tensor([0, 1, 2]))
    contrast = imagecorruptions.corrupt(raw[1][0].permute(1, 2, 0).numpy(), 5, "contrast")
    expected = (torch.from_numpy(contrast).permute(2, 0, 1) / 255 - 0.1) / 0.5
    assert torch.allclose(seen[7][1], expected, atol=1e-6)


def test_seed_decides_and_nothing_else(raw):
    def inputs(**more):
        seen = []
        corruption_errors(brightest(seen), raw, severities=[3], **{"corruptions": NAMES[:3]} | more)
        return torch.stack(seen) if len({len(one) for one in seen}) == 1 else seen

    first = inputs(seed=1)
    np.random.seed(7)
    random.seed(7)
    state = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    again = inputs(seed=1)
    assert (np.random.get_state()[1] == state[0]).all()
    assert random.getstate() == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])
    assert torch.equal(first, again)
    assert all(not torch.equal(a, b) for a, b in zip(first, inputs(seed=2), strict=True))
    ones = inputs(seed=1, batch_size=1)  # (3 images x 3 corruptions, 1, 3, 32, 32), image by image
    assert torch.equal(ones[:, 0].unflatten(0, (3, 3)).transpose(0, 1), first)
    assert torch.equal(inputs(seed=1, corruptions=NAMES[2:3])[0], first[2])
    # the same picture twice is corrupted in two ways
    seen = []
    corruption_errors(brightest(seen), [raw[0], raw[0]], corruptions=["gaussian_noise"], severities=[3])
    assert not torch.equal(seen[0][0], seen[0][1])


def test_image_folder_is_normalised_its_own_way(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), (250, 0, 0)).save(tmp_path / name / "red.png")
    seen = []
    folder = ImageFolder(tmp_path, size=32, resize=32, mean=[0, 0, 0], std=[2, 2, 2])
    found = corruption_errors(brightest(seen), folder, corruptions=["jpeg_compression"], severities=[1])
    assert found.wrong.tolist() == [[[False, True, True]]]
    assert float(seen[0][:, 0].mean()) == pytest.approx(250 / 510, abs=0.01)


def test_default_is_the_fifteen_of_imagenet_c():
    image = torch.tensor(skimage.data.chelsea()[:48, :48]).permute(2, 0, 1)
    found = corruption_errors(brightest([]), [(image, 0)], severities=[1])
    assert len(found.names) == 15
    assert {"frost", "fog", "zoom_blur", "elastic_transform"} < set(found.names)


def test_mean_corruption_error_by_hand():
    def errors(*wrong):
        return CorruptionErrors(("fog", "snow"), torch.tensor(wrong).bool())

    # two severities of four images; the errors of the reference are 3/4 + 1 and 1/4 + 1/4
    reference = errors([[1, 1, 1, 0], [1, 1, 1, 1]], [[1, 0, 0, 0], [0, 1, 0, 0]])
    own = errors([[1, 0, 0, 0], [1, 1, 0, 0]], [[0, 0, 0, 0], [1, 1, 1, 0]])
    assert mean_corruption_error(own, reference) == pytest.approx((3 / 7 + 3 / 2) / 2)
    assert mean_corruption_error(reference, reference) == 1
    perfect = errors([[1, 0], [0, 0]], [[0, 0], [0, 0]])
    with pytest.raises(AliasfixError, match="the reference makes no error under snow"):
        mean_corruption_error(own, perfect)
    with pytest.raises(AliasfixError, match="under different corruptions"):
        mean_corruption_error(own, CorruptionErrors(("fog",), reference.wrong[:1]))


def test_mean_corruption_error_agrees_with_a_plain_loop():
    random = torch.Generator().manual_seed(0)
    own, reference = (
        CorruptionErrors(("fog", "snow", "frost"), torch.rand(3, 5, 7, generator=random) < share)
        for share in (0.3, 0.6)
    )
    ratios = []
    for one, other in zip(own.wrong.tolist(), reference.wrong.tolist(), strict=True):
        ratios.append(sum(sum(row) / 7 for row in one) / sum(sum(row) / 7 for row in other))
    assert mean_corruption_error(own, reference) == pytest.approx(sum(ratios) / 3, abs=1e-6)


def test_what_cannot_be_corrupted(raw):
    for given, message in (
        ([(raw[0][0] / 255, 1)], r"work on \(3, H, W\) uint8 images"),
        ([(raw[0][0], None)], "need labels"),
        ([(raw[0][0], 3)], "labels are 3 to 3 and the model has 3 classes"),
    ):
        with pytest.raises(AliasfixError, match=message):
            corruption_errors(brightest([]), given, corruptions=["contrast"])
    with pytest.raises(AliasfixError, match="no such corruption: rain; there are gaussian_noise"):
        corruption_errors(brightest([]), raw, corruptions=["rain"])
