"""Fine-tuning: the losses by hand, runs that are interrupted, processes that share a batch, and mistakes."""

import csv
import functools
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import aliasfix
from aliasfix.errors import AliasfixError
from aliasfix.files import models
from aliasfix.finetuning.losses import Objective, consistency, distillation, shifted

from . import drawing
from .finetuning import OPTIONS, net, outcome, photographs

pytestmark = pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # of networks with random weights

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    photographs(root / "images")
    return root


images = functools.partial(drawing.images, size=(16, 16), seed=0)


def labelled(count=24, classes=3):
    """Images whose mean colour says the class."""
    labels = torch.arange(count) % classes
    pixels = images(count)
    pixels[torch.arange(count), labels] += 1.5
    return TensorDataset(pixels, labels)


def metrics(out):
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The losses


def test_distillation_is_the_divergence_written_out():
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = b.softmax(1), a.softmax(1)
    torch.testing.assert_close(distillation(a, b), (p * (p / q).log()).sum(1))
    hot, cool = (b / 4).softmax(1), (a / 4).softmax(1)
    torch.testing.assert_close(distillation(a, b, 4), 16 * (hot * (hot / cool).log()).sum(1))
    squares = (a - b - (a - b).mean(1, keepdim=True)).square().mean(1) / 2
    torch.testing.assert_close(distillation(a, b, 1e4), squares, rtol=1e-3, atol=0)
    both = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)) / 2
    torch.testing.assert_close(consistency(a, b), both)


def test_distilled_from_itself_nothing_moves():
    model = net(dropout=0.0)
    Objective(model, net(dropout=0.0), 1.0, 0.0, "reflect")(images(24), None).backward()
    assert all(p.grad.abs().max() < 1e-7 for p in model.parameters())
    other = aliasfix.revert(model)
    Objective(model, other, 1.0, 0.0, "reflect")(images(24), None).backward()
    assert max(p.grad.abs().max() for p in model.parameters()) > 1e-4
    assert all(p.grad is None or p.grad is not q.grad for p, q in zip(model.parameters(), other.parameters()))  # noqa: B905


def test_a_network_that_shifts_change_nothing_in_has_no_consistency_loss():
    invariant = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    offsets = torch.randint(-3, 4, (2, 24, 2), generator=torch.Generator().manual_seed(0))
    for module, low, high in ((invariant, -1e-7, 1e-7), (strided, 1e-3, 1e3)):
        objective = Objective(module.double(), module, 1.0, 5.0, "circular")
        loss = objective(images(24).double(), None, offsets, 3)  # distilled from itself: consistency alone
        assert low < loss < high


def test_the_loss_is_the_sum_written_out():
    model, original = net(dropout=0.0), aliasfix.revert(net(dropout=0.0))
    x, labels = images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    offsets = torch.randint(-2, 3, (2, 6, 2), generator=torch.Generator().manual_seed(0))
    one, other = (
        torch.stack([i.roll(tuple(o), (1, 2)) for i, o in zip(x, each.tolist(), strict=True)]) for each in offsets
    )
    expected = 0.0
    for moved in (one, other):
        p, q = original(moved).log_softmax(1), model(moved).log_softmax(1)
        expected += 0.7 * -q[torch.arange(6), labels].mean() / 2 + 0.3 * (p.exp() * (p - q)).sum(1).mean() / 2
    p, q = model(one).log_softmax(1), model(other).log_softmax(1)
    expected += 0.4 * ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2
    loss = Objective(model, original, 0.3, 0.4, "circular")(x, labels, offsets, 2)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "circular"])
def test_shifts_go_past_the_border_as_numpy_says(padding):
    mode = {"replicate": "edge", "zero": "constant", "circular": "wrap"}.get(padding, padding)
    x = images(2, size=(7, 7))
    moved = shifted(x, torch.tensor([[2, -3], [-1, 0]]), 3, padding)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode)
    assert np.array_equal(moved[0], padded[0, :, 1:8, 6:13])
    assert np.array_equal(moved[1], padded[1, :, 4:11, 3:10])


# What it does


def test_labels_are_learned_and_the_best_weights_are_kept(tmp_path):
    model, data = net(), labelled()
    run = aliasfix.finetune(
        model, DataLoader(data, 8, shuffle=True), tmp_path / "run", validation=DataLoader(data, 9),
        distillation=0, epochs=15, lr=3e-2,
    )  # fmt: skip
    assert run.epochs[0].top1 < 0.6 < 0.95 < run.best.top1
    assert run.best.agreement is None
    seen = (model.eval()(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean().item()
    assert seen == pytest.approx(run.best.top1)
    loaded = aliasfix.load(run.path, net())
    assert equal(weights(loaded), weights(model))
    assert aliasfix.report(loaded) == aliasfix.report(model)
    assert "best" in str(run)


def test_without_labels_the_original_comes_back(tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    original, x = nn.Sequential(*layers), nn.functional.interpolate(images(64, size=(4, 4)), 16, mode="bilinear")
    original[-1].weight.data *= 20
    model = aliasfix.convert(original, stem="full", example_input=x)
    loader, held = DataLoader(x, 16, shuffle=True), DataLoader(x, 10)
    run = aliasfix.finetune(model, loader, tmp_path, validation=held, epochs=15, lr=1e-2)
    first, best = run.epochs[0], run.best
    assert best.validation_loss < first.validation_loss / 3
    assert best.agreement > max(0.9, first.agreement)
    assert best.top1 is None
    with torch.no_grad():
        loss = distillation(model(x), original(x)).mean().item()
        agreement = (model(x).argmax(1) == original(x).argmax(1)).float().mean().item()
    assert loss == pytest.approx(best.validation_loss, abs=1e-6)
    assert agreement == pytest.approx(best.agreement)


def test_the_model_stays_its_own(tmp_path):
    model = net()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    parameters = list(model.parameters())
    statistics = weights(model[1])
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    aliasfix.finetune(model, DataLoader(labelled(), 8), tmp_path, epochs=1, mixed_precision="no")
    assert (torch.rand(1), random.random(), np.random.rand()) == expected
    assert [module.training for module in model.modules()] == modes
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))
    assert "forward" not in vars(model)
    kept = weights(model[1])
    assert torch.equal(kept["running_mean"], statistics["running_mean"])
    assert not torch.equal(kept["weight"], statistics["weight"])
    with pytest.raises(AliasfixError, match=r"calibrated \(fine-tuning\).*load the original's"):
        aliasfix.revert(model)
    model.load_state_dict(net().state_dict())
    aliasfix.revert(model)


def test_batch_statistics_are_updated_on_request(tmp_path):
    model = net()
    before = model[1].running_mean.clone()
    aliasfix.finetune(model, DataLoader(labelled(), 8), tmp_path, epochs=1, batch_statistics=True)
    assert model[1].num_batches_tracked == 3
    assert not torch.equal(before, model[1].running_mean)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_backbone_on_a_folder(library, folder, tmp_path):
    torch.manual_seed(0)
    name = {"timm": "timm:resnet10t", "torchvision": "torchvision:resnet18"}[library]
    build = functools.partial(models.build, name, {"num_classes": 3}, pretrained=False)
    model = aliasfix.convert(build(), inplace=True)
    run = aliasfix.finetune(
        model, folder / "images", tmp_path / "run", epochs=1, batch_size=16, size=32, distillation=0.5, lr=1e-3,
        optimizer="sgd", augmentation={"hflip": 0.0, "re_prob": 0.5},
    )  # fmt: skip
    assert [epoch.step for epoch in run.epochs] == [0, 2]
    assert len(metrics(tmp_path / "run")) == 4
    assert list((tmp_path / "run").glob("events.*"))
    loaded = aliasfix.load(run.path, None if library == "timm" else build())
    assert equal(weights(loaded), weights(model))


# The same again


class Interrupt(Exception):
    """Ends a run where a kill would."""


class Noisy(Dataset):
    """Images with noise of every generator there is, that raises at the n-th image loaded."""

    def __init__(self, until=None):
        self.data, self.until, self.loaded = labelled(), until, 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.loaded += 1
        if self.until is not None and self.loaded > self.until:
            raise Interrupt
        image, label = self.data[index]
        return image + torch.randn(1) + float(random.random() + np.random.rand()), label


@pytest.mark.parametrize("save_every", [1, 2, None])
def test_a_loader_is_the_same_after_an_interruption_wherever_it_was(save_every, tmp_path):
    options = {"epochs": 3, "ema": 0.9, "consistency": 0.5, "lr": 1e-2, "save_every": save_every}

    def run(out, until=None, resume=False):
        held = DataLoader(labelled(10), 4)
        loader = DataLoader(Noisy(until), 5, shuffle=True, generator=torch.Generator().manual_seed(3))
        return aliasfix.finetune(net(), loader, out, validation=held, resume=resume, **options)

    run(tmp_path / "whole")
    for seed, until in enumerate((20, 34, 58, 77)):
        torch.manual_seed(seed)  # what another process would have
        random.seed(seed)
        out = tmp_path / f"{until}"
        with pytest.raises(Interrupt):
            run(out, until)
        run(out, resume=True)
        assert outcome(out) == outcome(tmp_path / "whole"), until


def test_a_folder_is_the_same_after_an_interruption(folder, tmp_path, monkeypatch):
    aliasfix.finetune(net(), folder / "images", tmp_path / "whole", **OPTIONS)
    from aliasfix.finetuning.photographs import Photographs

    load, loaded = Photographs.__getitem__, []

    def interrupted(self, index):
        loaded.append(index)
        if len(loaded) == until:
            raise Interrupt
        return load(self, index)

    for until in (45, 61):
        loaded.clear()
        monkeypatch.setattr(Photographs, "__getitem__", interrupted)
        with pytest.raises(Interrupt):
            aliasfix.finetune(net(), folder / "images", tmp_path / f"{until}", **OPTIONS)
        monkeypatch.setattr(Photographs, "__getitem__", load)
        aliasfix.finetune(net(), folder / "images", tmp_path / f"{until}", **OPTIONS, resume=True)
        assert outcome(tmp_path / f"{until}") == outcome(tmp_path / "whole")


def script(*command):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_as_one_that_is_not(kills, folder, tmp_path):
    (tmp_path / "images").symlink_to(folder / "images")
    whole = aliasfix.finetune(net(), folder / "images", tmp_path / "whole", **OPTIONS)
    assert whole.epochs[-1].step == 12
    *ends, steps = script("tests.finetuning", "kill", tmp_path, kills, kills).splitlines()
    assert len(steps.split()) == kills
    assert set(ends) == {outcome(tmp_path / "whole")}
    assert len(set(steps.split())) > kills // 3, steps


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(folder, tmp_path):
    (tmp_path / "images").symlink_to(folder / "images")
    aliasfix.finetune(net(dropout=0.0), folder / "images", tmp_path / "one", **OPTIONS)
    script("accelerate.commands.launch", "--cpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no",
           "--dynamo_backend", "no", "-m", "tests.finetuning", "once", tmp_path)  # fmt: skip
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "run")
    assert len(one) == len(two) == 12 + 4
    assert len({row["loss"] for row in one}) > 8
    for a, b in zip(one, two, strict=True):
        assert [key for key in a if a[key]] == [key for key in b if b[key]]
        for key in a:
            assert float(a[key] or 0) == pytest.approx(float(b[key] or 0), abs=1e-5), (a, b)
