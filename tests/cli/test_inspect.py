"""``aliasfix inspect``: of a model, and of a file."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

import aliasfix

from .conftest import said

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"


def test_a_model(run: Run) -> None:
    result = run("inspect", "timm:resnet10t")
    assert result.exit_code == 0
    assert said(result.stderr) == ""
    rows = [line.split()[:4] for line in result.stdout.splitlines()]
    assert ["conv1.0", "conv2d", "2x2", "keep"] in rows
    assert ["maxpool", "max_pool2d", "2x2", "convert"] in rows
    assert "7 of 8 sampling operations converted" in result.stdout


def test_the_plan_is_that_of_the_api(run: Run) -> None:
    import tiny_nets

    options = ["--filter", "bin5", "--stem", "full", "--exclude", "2", "--arg", "width=8", "--input-size", "3,20,20"]
    data = json.loads(run("inspect", NET, *options, "--json").stdout)
    plan = aliasfix.inspect(
        tiny_nets.make_net(width=8), "bin5", stem="full", exclude=["2"], example_input=torch.ones(2, 3, 20, 20)
    )
    assert data["plan"] == json.loads(plan.to_json())
    assert (data["model"], data["args"], data["converted"], data["kept"]) == (NET, {"width": 8}, 1, 1)


def test_nothing_to_convert(run: Run) -> None:
    assert run("inspect", NET, "--exclude", "*").exit_code == 3


def test_a_converted_file(run: Run) -> None:
    for name in ("out.pth", "out.safetensors"):
        run("convert", NET, "--arg", "classes=5", "--padding", "zero", "--exclude", "3", "-o", name)
        result = run("inspect", name)
        assert result.exit_code == 0
        assert f"{name}: 11 tensors" in result.stdout
        assert f"A model that the file does not name, converted by aliasfix {aliasfix.__version__}" in result.stdout
        rows = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
        assert ["padding", "zero"] in rows
        assert ["include", "-"] in rows
        data = json.loads(run("inspect", name, "--json").stdout)
        assert data["aliasfix"]["recipe"]["padding"] == "zero"
        assert data["tensors"] == 11


def test_a_plain_checkpoint_says_that_a_model_is_needed(run: Run, home: Path) -> None:
    state = {"fc.weight": torch.ones(3, 4)}
    torch.save(state, home / "plain.pth")
    result = run("inspect", "plain.pth")
    assert result.exit_code == 0
    assert "plain.pth: 1 tensors of 12 values in state_dict\nNot converted by aliasfix" in result.stdout
    assert result.stdout.rstrip().endswith("aliasfix inspect MODEL")
    args = argparse.Namespace(model="resnet18", num_classes=3)
    torch.save({"state_dict": {}, "model_ema": state, "args": args, "epoch": 1}, home / "trained.pth")
    result = run("inspect", "trained.pth")
    assert "in model_ema, beside args, epoch, state_dict" in result.stdout
    assert result.stdout.rstrip().endswith("aliasfix inspect resnet18 --arg num_classes=3")
    data = json.loads(run("inspect", "trained.pth", "--json").stdout)
    assert (data["aliasfix"], data["model"], data["entry"]) == (None, "resnet18", "model_ema")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("nowhere.pth", "no such file: nowhere.pth"),
        ("folder/nowhere", "no such file: folder/nowhere"),
        ("n" * 5000, "no model"),
        ("resnet81", "no model 'resnet81'"),
        ("tiny_nets.py", "tiny_nets.py is no checkpoint"),
        ("timm:a/b", "timm has no model 'a/b'"),
    ],
)
def test_targets_of_no_kind(fails: Fails, target: str, expected: str) -> None:
    assert expected in fails("inspect", target)


def test_a_name_is_a_model_even_where_a_folder_has_it(run: Run, home: Path) -> None:
    (home / "mobilenetv3_small_050").mkdir()
    assert run("inspect", "mobilenetv3_small_050").exit_code == 0


def test_wrong_options(fails: Fails) -> None:
    assert "unknown filter 'tri4'" in fails("inspect", NET, "--filter", "tri4", code=2)
