"""A slice of the zoo by default, and a sample in training mode; the whole of it is `make zoo`."""

import copy
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from zoo import TRAINED_PARTS, check, part, verdict
from zoo_models import entries

import aliasfix
from aliasfix.checks.laws import redraw

NAMES = timm.list_models(exclude_filters="aliasfix")
SLICE = [
    name if place % 8 == 0 else pytest.param(name, marks=pytest.mark.slow)
    for place, name in enumerate(NAMES[:: len(NAMES) // 40][:40])
]
SAMPLE = [name for name in NAMES if part(name) in TRAINED_PARTS]


@pytest.mark.filterwarnings("default")  # what the models themselves warn of
@pytest.mark.parametrize("name", SLICE)
def test_every_model_is_converted_or_says_why_not(name):
    entry = next(entry for entry in entries("timm") if entry.name == name)
    line = check(entry, large=12e6)
    assert verdict(line) in ("converted", "nothing to convert"), line
    assert line["reverts"]
    assert line["drifts"] == 0
    assert line["converted"] + sum(line["kept"].values()) == sum(line["sites"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_every_model_trains_as_before(name):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with torch.device("meta"):
            size = sum(p.numel() for p in timm.create_model(name).parameters())
        if size > 400e6:
            pytest.skip("too large to train on this machine")
        torch.manual_seed(0)
        model = redraw(timm.create_model(name))
        size = _smallest(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = aliasfix.convert(model, example_input=torch.rand(2, *size))
    before, after = _step(model, size), _step(converted, size)
    assert before[0] <= after[0]
    assert before[1] == after[1]


@pytest.mark.slow
def test_a_billion_parameters_convert_in_place_without_a_copy():
    with torch.device("meta"):
        model = timm.create_model("regnety_2560")
    assert sum(p.numel() for p in model.parameters()) > 1e9
    model.to_empty(device="cpu")
    aliasfix.inspect(timm.create_model("resnet18"))  # what is imported once is not the model's
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    aliasfix.convert(model, inplace=True)
    assert len(aliasfix.report(model).converted) > 5
    assert _resident("VmHWM") - before < 100


def _resident(what):
    """Megabytes."""
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) / 1024


def _smallest(model):
    """The smallest size that the model takes, up to its own."""
    channels, height, width = model.pretrained_cfg["input_size"]
    for side in (64, 96, 128):
        try:
            with torch.no_grad():
                copy.deepcopy(model).train()(torch.rand(2, channels, side, side))
        except Exception:
            continue
        return channels, side, side
    return channels, height, width


def _step(model, size):
    """The parameters that get a gradient, and how often each BatchNorm is updated, in one step."""
    torch.manual_seed(0)
    model.train()
    counts = {n: m.num_batches_tracked.clone() for n, m in _norms(model)}
    model(torch.rand(2, *size)).square().mean().backward()
    updates = {n: int(m.num_batches_tracked - counts[n]) for n, m in _norms(model)}
    return {name for name, p in model.named_parameters() if p.grad is not None}, updates


def _norms(model):
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_batches_tracked is not None
    ]
