"""``aliasfix.convert_file`` and ``aliasfix.export``: what the commands do, from Python."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import aliasfix
from aliasfix import AliasfixError, Recipe
from aliasfix.files import models
from aliasfix.files.opening import open_model

NET = {"base": "torchvision:squeezenet1_1", "base_args": {"num_classes": 3}}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A trainer's checkpoint of a network."""
    torch.manual_seed(0)
    net = models.build(NET["base"], NET["base_args"], pretrained=False)
    torch.save({"state_dict": net.state_dict(), "epoch": 7}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


@torch.no_grad()
def test_everything_is_kept_beside_the_recipe(mine: Path, tmp_path: Path) -> None:
    done = aliasfix.convert_file(mine, tmp_path / "out.pth", **NET, recipe=Recipe("bin5"))
    assert (done.path, done.args, done.left_out, done.calibration) == (
        tmp_path / "out.pth", NET["base_args"], (), None
    )  # fmt: skip
    before, after = torch.load(mine), torch.load(done.path)
    assert after.pop("aliasfix")["recipe"]["filter"] == "bin5"
    assert after.keys() == before.keys()
    assert all(torch.equal(after["state_dict"][key], value) for key, value in before["state_dict"].items())
    assert aliasfix.report(aliasfix.load(done.path)).steps == done.plan.steps


def test_what_a_format_has_no_room_for_is_named(mine: Path, tmp_path: Path) -> None:
    done = aliasfix.convert_file(mine, str(tmp_path / "out.safetensors"), **NET)
    assert done.left_out == ("epoch",)
    folder = aliasfix.convert_file(mine, f"{tmp_path}/some/where/", **NET, parents=True)
    assert json.loads((folder.path / "config.json").read_text())["architecture"] == "aliasfix"
    assert folder.left_out == ("epoch",)


def test_a_file_is_streamed_where_it_is_asked_for(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.load(mine)["state_dict"]
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors")
    out = tmp_path / "new" / "out.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("aliasfix.files.opening.read_weights", None)
        done = aliasfix.convert_file(tmp_path / "mine.safetensors", out, **NET, stream=True, parents=True)
    written = safetensors.torch.load_file(done.path)
    assert all(torch.equal(written[key], value) for key, value in state.items())
    assert aliasfix.report(aliasfix.load(out)).steps == done.plan.steps


@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # of a network with random weights
def test_the_weights_are_calibrated_on_images(mine: Path, tmp_path: Path) -> None:
    images = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    done = aliasfix.convert_file(mine, tmp_path / "out.pth", **NET, images=images)
    assert (done.calibration.images, done.left_out) == (12, ("epoch",))
    assert aliasfix.report(aliasfix.load(done.path)).calibration == done.plan.calibration


def test_a_directory_says_what_builds_its_model(tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv3_small_050", num_classes=4)
    timm.models._hub.save_for_hf(model, tmp_path / "plain", safe_serialization=True)
    done = aliasfix.convert_file(tmp_path / "plain", tmp_path / "out")
    assert (str(done.source), done.args["num_classes"]) == ("timm:mobilenetv3_small_050", 4)
    assert timm.create_model(f"local-dir:{done.path}", pretrained=True).num_classes == 4


def test_nothing_to_convert_writes_nothing(tmp_path: Path) -> None:
    with pytest.warns(aliasfix.NoEffectWarning, match="nothing to convert"):
        done = aliasfix.convert_file(
            None, tmp_path / "out.pth", **NET, recipe=Recipe(exclude="features*"), pretrained=False
        )
    assert done.path is None
    assert done.plan.kept
    assert list(tmp_path.iterdir()) == []


def test_mistakes_write_nothing(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    torch.save(torch.load(mine)["state_dict"], tmp_path / "bare.pth")
    aliasfix.convert_file(tmp_path / "bare.pth", tmp_path / "done.pth", **NET)
    before = sorted(tmp_path.iterdir())
    for source, target, options, message in (
        (mine, out, {}, "mine.pth: name what builds the model, such as base="),
        (None, out, {}, "name what builds the model"),
        (tmp_path / "no.pth", out, NET, "no such file"),
        (mine, tmp_path / "no" / "out.pth", NET, "no such directory"),
        (mine, tmp_path / "out.onnx", NET, "the format is told by the suffix"),
        (mine, out, {**NET, "base_args": {}}, "only the head differs"),
        (tmp_path / "done.pth", out, {**NET, "recipe": Recipe("bin5")}, "filter 'tri3', not 'bin5'"),
        (mine, out, {**NET, "images": torch.ones(9, 3, 64, 64), "stream": True}, "exclude each other"),
    ):
        with pytest.raises(AliasfixError, match=message):
            aliasfix.convert_file(source, target, **options)
        assert sorted(tmp_path.iterdir()) == before


def test_a_converted_file_is_exported(mine: Path, tmp_path: Path) -> None:
    done = aliasfix.convert_file(mine, tmp_path / "out.pth", **NET)
    x = torch.randn(1, 3, 64, 64)
    assert aliasfix.export(done.path, tmp_path / "net.pt2", example_input=x) == 0
    with torch.no_grad():
        found = torch.export.load(tmp_path / "net.pt2").module()(x)
        assert torch.allclose(found, aliasfix.load(done.path)(x), atol=1e-6)
    with pytest.raises(AliasfixError, match="was not converted"):
        aliasfix.export(mine, tmp_path / "no.pt2")


def test_a_model_is_opened_with_the_conversion_of_its_weights(mine: Path, tmp_path: Path) -> None:
    """By its name and a file, or by the file: whatever a command is given."""
    done = aliasfix.convert_file(mine, tmp_path / "out.pth", **NET, recipe=Recipe("bin5"))
    named = (NET["base"], NET["base_args"])
    for given in ((*named, done.path), (str(done.path),)):
        model = open_model(*given)
        assert aliasfix.report(model).steps == done.plan.steps
        assert not model.training
        with pytest.raises(AliasfixError, match="filter 'bin5', not 'bin4'"):
            open_model(*given, recipe=Recipe("bin4"))
    assert aliasfix.report(open_model(*named, mine)) is None
    with pytest.raises(AliasfixError, match=r"mine.pth was not converted by aliasfix: convert it first"):
        open_model(str(mine))
