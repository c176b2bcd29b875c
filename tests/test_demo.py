"""The demonstration: the network with its weights, and the figures it prints."""

import io
import json

import pytest
import torch
from rich.console import Console

import aliasfix
from aliasfix import AliasfixError, demo

PHOTOGRAPHS = {"coffee": 967, "camera": 872}


@pytest.fixture(scope="module")
def network():
    return demo.network()


@pytest.fixture(scope="module")
def images():
    return dict(demo.images())


@pytest.mark.parametrize(("photograph", "label"), PHOTOGRAPHS.items())
def test_the_network_knows_the_photograph(network, images, photograph, label):
    chances = demo.classify(network, demo.features(network, demo.crops(images[photograph], torch.tensor([[16, 16]]))))
    assert chances.argmax().item() == label
    assert chances.max().item() > 0.9


def test_the_central_crop_is_what_timm_evaluates_on(network, images):
    import skimage.data
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, model=network))
    wanted = transform(Image.fromarray(skimage.data.coffee()))
    assert torch.equal(demo.crops(images["coffee"], torch.tensor([[16, 16]]))[0], wanted)


def test_figures_with_a_known_answer():
    assert demo.consistent(torch.tensor([1, 1, 2, 3])) == 0.5
    assert demo.moved(torch.tensor([[1.0, 0], [0, 1], [1, 0]])) == pytest.approx(0.5)
    assert demo.distance_between([torch.tensor([1.0, 0]), torch.tensor([0.0, 1]), torch.tensor([-1.0, 0])]) == (
        pytest.approx(4 / 3)
    )


def test_the_demo_converts_checks_saves_and_measures(monkeypatch, network, images, tmp_path):
    few = [(name, images[name]) for name in PHOTOGRAPHS]
    monkeypatch.setattr(demo, "network", lambda: network)
    monkeypatch.setattr(demo, "images", lambda: few)
    console = Console(width=140, record=True, file=io.StringIO())
    result = demo.demo(tmp_path / "out.safetensors", pairs=2, console=console)
    printed = console.export_text()

    assert result.verification.ok
    assert [photo.name for photo in result.photographs] == list(PHOTOGRAPHS)
    assert result.photographs[0].classes == ("espresso", "espresso")
    assert result.movement[1] < result.movement[0]
    assert json.loads(result.to_json())["agreement"] == result.agreement
    for part in ("before", "after", "Top-1 agreement", demo.SENTENCE, "blocks.5.0.conv_dw"):
        assert part in printed
    loaded = aliasfix.load(result.output)
    assert aliasfix.report(loaded) == result.plan
    assert list(loaded.state_dict()) == list(network.state_dict())


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(AliasfixError, match="missing"):
        demo.demo(tmp_path / "missing" / "out.safetensors", console=Console(quiet=True))
