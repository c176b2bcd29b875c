"""Files that an older version wrote are still read, and give the outputs that they gave then.

Version 0.1.0 wrote what is in ``data/``, at commit 6aa4bac, with torch 2.14.1, timm 1.0.31 and torchvision 0.29.1:

- ``directory``, ``weights.safetensors`` and ``weights.pth`` by ``aliasfix.save``;
- ``calibrated.safetensors`` by ``aliasfix.calibrate(…, method="both")`` and ``aliasfix.save``;
- ``own.pth`` by ``aliasfix.save`` without a base, of a ``Net`` converted with ``average="replace"``;
- ``trainer.pth.tar`` by ``aliasfix convert --filter rect2`` from a checkpoint with the optimizer's state, as timm's
  trainer writes it;
- ``plan.json`` and ``recipe.json`` by ``to_json`` of the plan and the recipe of ``own.pth``;
- ``outputs.json``: what the networks returned for ``image()``.

They are never written anew: a new format gets files of its own, beside these.
"""

import argparse
import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix

from .drawing import scale_error

DATA = Path(__file__).parent / "data"
OUTPUTS = json.loads((DATA / "outputs.json").read_text())
WITH_BASE = ("directory", "weights.safetensors", "weights.pth", "calibrated.safetensors", "trainer.pth.tar")
EDITS = {"Restride", "BlurModule", "DenseCall", "BlurCall", "ReplaceCall"}


class Block(nn.Module):
    """Operations that its forward calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.conv.weight, self.conv.bias, 2, 1)) + F.avg_pool2d(x, 3, 2, 1)


class Net(nn.Module):
    """Modules and functions that sample, such that its plan has every kind of edit in it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.block, self.conv = nn.MaxPool2d(2), Block(), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = self.act(self.conv(self.block(self.pool(x))))
        return self.fc(F.pixel_shuffle(F.interpolate(x, scale_factor=2.0), 2).mean((2, 3)))


def image() -> Tensor:
    """An input of numbers that every machine computes alike."""
    return (torch.arange(3 * 64 * 64) * 37 % 101 / 50 - 1).reshape(1, 3, 64, 64)


@torch.no_grad()
def assert_as_then(name: str, model: nn.Module) -> None:
    assert scale_error(torch.tensor(OUTPUTS[name]), model.eval()(image())[0]) <= 1e-5


@pytest.mark.parametrize("name", WITH_BASE)
def test_a_file_builds_its_model(name: str) -> None:
    model = aliasfix.load(DATA / name)
    assert_as_then(name, model)
    plan = aliasfix.report(model)
    assert plan.converted
    assert (plan.calibration is not None) == name.startswith("calibrated")


def test_a_file_without_a_base_takes_a_model() -> None:
    assert_as_then("own.pth", aliasfix.load(DATA / "own.pth", Net()))


def test_timm_opens_the_directory() -> None:
    assert_as_then("directory", timm.create_model(f"local-dir:{DATA / 'directory'}", pretrained=True))


def test_a_trainer_finds_what_it_wrote() -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(DATA / "trainer.pth.tar", weights_only=True)
    assert (content["epoch"], content["arch"], content["metric"]) == (3, "test_resnet", 12.5)
    assert content["args"].lr == 0.01
    model = aliasfix.load(DATA / "trainer.pth.tar")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.load_state_dict(content["optimizer"])
    assert all(state["momentum_buffer"].shape == weight.shape for weight, state in optimizer.state.items())
    assert len(optimizer.state) == len(list(model.parameters()))


def test_a_plan_is_read_and_is_the_one_that_is_made_today() -> None:
    plan = aliasfix.Plan.from_json((DATA / "plan.json").read_text())
    assert {type(edit).__name__ for edit in plan.edits} == EDITS
    again = aliasfix.Plan.from_json(plan.to_json())
    today = aliasfix.inspect(Net(), average="replace", gather="blur", example_input=image())
    for other in (again, today, aliasfix.report(aliasfix.load(DATA / "own.pth", Net()))):
        assert other == plan
    for other in (again, today):
        assert (other.cost, other.traced) == (plan.cost, plan.traced)  # which == does not compare
        assert [step.cost for step in other] == [step.cost for step in plan]


def test_a_recipe_is_read() -> None:
    recipe = aliasfix.Recipe.from_json((DATA / "recipe.json").read_text())
    assert recipe == aliasfix.Recipe("tri3", average="replace", gather="blur")  # which had no name then
    assert recipe == aliasfix.Recipe.from_json(recipe.to_json())


def test_the_words_of_a_plan_may_change() -> None:
    plan = aliasfix.inspect(Net(), exclude=["block"], example_input=image())
    text = plan.to_json()
    assert "excludes it" in text
    assert aliasfix.Plan.from_json(text.replace("excludes it", "leaves it out")) == plan
    assert aliasfix.Plan.from_json(text.replace('"action": "keep"', '"action": "convert"')) != plan
