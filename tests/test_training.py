"""Training and validation of a converted model with timm's own parts, on a folder of images."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import aliasfix
from aliasfix.cli import app

from .checkpoints import same
from .drawing import draw
from .scripts import train as script

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's dataset leaves them open

SCRIPTS = Path(__file__).parent / "scripts"
ARGS = {"channels": [8, 8, 16, 16], "num_classes": 3}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four images."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        place = folder / "train" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (80, 90, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.frombytes("RGB", (90, 80), bytes(pixels.flatten().tolist())).save(place / f"{number}.png")
    os.symlink("train", folder / "validation")
    return folder


def original() -> nn.Module:
    torch.manual_seed(0)
    return draw(timm.create_model("resnet18", **ARGS))


def parts(photos: Path, model: nn.Module, output: Path | None = None, resume: Path | None = None) -> SimpleNamespace:
    args = Namespace(model="resnet18", num_classes=3, model_kwargs={"channels": ARGS["channels"]})
    args.data_dir, args.output = str(photos), output and str(output)
    return script.parts(args, model, resume and str(resume))


def test_a_run_goes_on_from_its_checkpoint(photos: Path, tmp_path: Path) -> None:
    whole = parts(photos, aliasfix.convert(original()), tmp_path)
    first, second = script.train(whole), script.train(whole)
    assert first != second
    resumed = parts(photos, aliasfix.convert(original()), resume=tmp_path / "checkpoint-0.pth.tar")
    assert resumed.epoch == 1
    assert script.train(resumed) == second
    assert same(script.state(resumed), script.state(whole))
    assert aliasfix.report(whole.ema.module) == aliasfix.report(whole.model)


def test_a_converted_checkpoint_goes_on_as_the_converted_model_does(photos: Path, tmp_path: Path) -> None:
    """Converting a trainer's file, or the model in the trainer's hands: the same next epoch, bit for bit."""
    run = parts(photos, original(), tmp_path)
    script.train(run)
    command = ["convert", "timm:resnet18", "--checkpoint", tmp_path / "last.pth.tar", "-o", tmp_path / "out.pth.tar"]
    result = CliRunner().invoke(app, [*map(str, command), "--quiet"])
    assert result.exit_code == 0, result.output
    run.saver = None
    for model in (run.model, run.ema.module):
        aliasfix.convert(model, inplace=True)
    loss = script.train(run)
    resumed = parts(photos, aliasfix.convert(original()), resume=tmp_path / "out.pth.tar")
    assert script.train(resumed) == loss
    assert same(script.state(resumed), script.state(run))


def test_a_checkpoint_of_a_converted_models_trainer(photos: Path, tmp_path: Path) -> None:
    """Its trainer did not write the steps; converting it puts them in, and leaves the rest."""
    run = parts(photos, aliasfix.convert(original(), "bin5"), tmp_path)
    script.train(run)
    last, out = str(tmp_path / "last.pth.tar"), str(tmp_path / "out.pth.tar")
    with pytest.raises(aliasfix.AliasfixError, match=r"it names layer2\.0"):
        aliasfix.load(last)
    command = ["convert", "timm:resnet18", "--checkpoint", last, "--filter", "bin5", "-o", out, "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    loaded = aliasfix.load(out)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(x), run.ema.module.eval()(x))
    losses = {script.train(parts(photos, aliasfix.convert(original(), "bin5"), resume=Path(f))) for f in (last, out)}
    assert len(losses) == 1


def process(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, str]:
    """A converted model, and what timm's scripts call its directory."""
    model, path = aliasfix.convert(original()), tmp_path_factory.mktemp("models") / "converted"
    aliasfix.save(model, path)
    return model, f"local-dir:{path}"


@pytest.mark.slow
def test_an_unmodified_script_validates(photos: Path, converted: tuple[nn.Module, str]) -> None:
    model, name = converted
    done = process("-m", "aliasfix", "run", SCRIPTS / "validate.py", name, photos)
    assert done.returncode == 0, done.stderr
    images, targets = _batch(photos, model)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model.eval()(images), targets).item()
    assert json.loads(done.stdout)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_an_unmodified_script_trains(photos: Path, converted: tuple[nn.Module, str], tmp_path: Path) -> None:
    model, name = converted
    options = ("--model", name, "--pretrained", "--data-dir", photos, "--output", tmp_path)
    trained = process("-m", "aliasfix", "run", SCRIPTS / "train.py", *options)
    assert trained.returncode == 0, trained.stderr
    state = torch.load(tmp_path / "last.pth.tar", weights_only=False)["state_dict"]
    assert state.keys() == model.state_dict().keys()
    assert not same(dict(state), dict(model.state_dict()))
    assert any("aliasfix_blur" in key for key in state._metadata)


def _batch(photos: Path, model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The images as timm prepares them for validation."""
    config = timm.data.resolve_data_config({"img_size": 64}, model=model, use_test_size=True)
    dataset = timm.data.create_dataset("", str(photos), split="validation")
    dataset.transform = timm.data.create_transform(**config)
    pairs = [dataset[n] for n in range(len(dataset))]
    return torch.stack([image for image, _ in pairs]), torch.tensor([target for _, target in pairs])
