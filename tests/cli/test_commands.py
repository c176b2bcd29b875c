"""``convert`` of many and of directories, ``revert``, ``verify`` and ``list``."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from typer.testing import Result

import aliasfix

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"
TIMM = "mobilenetv3_small_050"


@pytest.fixture
def tree(run: Run, home: Path) -> Path:
    """Checkpoints in a tree: two that fit, a damaged one, one of another model, other files, a link."""
    import tiny_nets

    for name, classes in {"a.pth": 3, "deep/b.pth": 3, "deep/other.pth": 7}.items():
        path = home / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tiny_nets.make_net(classes).state_dict(), path)
    (home / "runs" / "bad.pth").write_bytes(b"PK damaged")
    (home / "runs" / "log.txt").write_text("epoch 1")
    (home / "runs" / "link.pth").symlink_to("a.pth")
    return home / "runs"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_tree_goes_on_past_those_that_fail(run: Run, home: Path, tree: Path) -> None:
    result = run("convert", NET, "--checkpoint", "runs", "-o", "out/")
    assert result.exit_code == 1
    assert files(home / "out") == ["a.pth", "deep/b.pth"]
    lines = result.stderr.splitlines()
    assert [line.split(" ")[2] for line in lines[:-1]] == ["runs/bad.pth", "runs/deep/other.pth"]
    assert "only the head differs: --arg num_classes=7" in lines[1]
    assert lines[-1] == "aliasfix: error: 2 of 4 checkpoints could not be converted"
    fresh = torch.load(home / "out" / "a.pth", weights_only=True)
    assert fresh["aliasfix"]["recipe"]["filter"] == "tri3"


def test_many_as_json_and_again_into_the_tree(run: Run, home: Path, tree: Path) -> None:
    (tree / "bad.pth").unlink()
    (tree / "deep" / "other.pth").unlink()
    for _ in range(2):  # what was written the first time is no input the second
        result = run("convert", NET, "--checkpoint", "runs", "-o", "runs/out/", "--json")
        data = json.loads(result.stdout)
        assert result.exit_code == 0
        assert [one["output"] for one in data["results"]] == ["runs/out/a.pth", "runs/out/deep/b.pth"]
        assert data["failures"] == {}


@pytest.mark.parametrize("more", [(), ("--stream",)])
def test_a_tree_of_one(run: Run, home: Path, more: tuple[str, ...]) -> None:
    import tiny_nets

    (home / "runs" / "deep").mkdir(parents=True)
    safetensors.torch.save_file(tiny_nets.make_net().state_dict(), "runs/deep/a.safetensors")
    result = run("convert", NET, "--checkpoint", "runs", "-o", "out/", *more)
    assert result.exit_code == 0, result.output
    assert files(home / "out") == ["deep/a.safetensors"]


def test_several_need_a_directory_and_places_of_their_own(fails: Fails, tree: Path) -> None:
    both = ["--checkpoint", "runs/a.pth", "--checkpoint", "runs/deep/b.pth"]
    assert "give a directory" in fails("convert", NET, *both, "-o", "out.pth")
    twice = ["--checkpoint", "runs/a.pth", "--checkpoint", "runs"]
    assert "would both become" not in fails("convert", NET, *twice, "-o", "out.pth")
    os.makedirs("empty")
    assert "no weights in the directory empty: looked for .pth" in fails(
        "convert", NET, "--checkpoint", "empty", "-o", "out/"
    )
    os.makedirs("more")
    os.rename("runs/deep/other.pth", "more/a.pth")
    collide = ["--checkpoint", "runs/a.pth", "--checkpoint", "more/a.pth"]
    assert "runs/a.pth and more/a.pth would both become out/a.pth" in fails("convert", NET, *collide, "-o", "out/")


def test_quiet(run: Run, home: Path, tree: Path) -> None:
    result = run("convert", NET, "--checkpoint", "runs/a.pth", "-o", "out.pth", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    result = run("revert", "out.pth", "-o", "plain.pth", "-q")
    assert (result.exit_code, result.output) == (0, "")


@torch.no_grad()
@pytest.mark.slow
def test_directories_of_timm(run: Run, fails: Fails, home: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(TIMM, num_classes=4).eval()
    x = torch.randn(1, 3, 64, 64)
    for name, safe in {"safe": True, "old": False}.items():
        timm.models._hub.save_for_hf(model, home / name, safe_serialization=safe)
        result = run("convert", name, "-o", f"{name}-out/")
        assert result.exit_code == 0, result.output
        opened = timm.create_model(f"local-dir:{home / name}-out", pretrained=True).eval()
        assert torch.equal(opened(x), aliasfix.convert(model)(x))
    assert run("verify", "safe-out").exit_code == 0
    assert "timm:mobilenetv3_small_050" in run("inspect", "safe-out").stdout
    assert run("convert", "safe-out", "-o", "again.pth").exit_code == 0
    assert "filter 'tri3', not 'bin5'" in fails("convert", "safe-out", "--filter", "bin5", "-o", "x.pth")
    assert run("revert", "safe-out", "-o", "plain.safetensors").exit_code == 0
    with safetensors.safe_open("plain.safetensors", "pt") as file:
        assert "aliasfix" not in file.metadata()
    state = safetensors.torch.load_file("plain.safetensors")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_directories_that_name_no_model(run: Run, fails: Fails, home: Path, tree: Path) -> None:
    import tiny_nets

    os.makedirs("hf")
    Path("hf/config.json").write_text('{"architectures": ["ResNetForImageClassification"], "auto_map": {}}')
    text = fails("convert", "hf", "-o", "out.pth")
    assert "['ResNetForImageClassification']: name what builds the model, and the directory as --checkpoint hf" in text
    safetensors.torch.save_file(tiny_nets.make_net().state_dict(), "hf/model.safetensors")
    assert run("convert", NET, "--checkpoint", "hf", "-o", "out.safetensors").exit_code == 0
    assert "give base=" in fails("convert", NET, "--checkpoint", "hf", "-o", "out/")
    Path("hf/config.json").write_text('{"architecture": "resnet18", "model_args": {"checkpoint_path": "/etc/passwd"}}')
    assert "name weights to fetch, which is refused: checkpoint_path" in fails("convert", "hf", "-o", "out.pth")


def test_weights_saved_from_another_conversion(run: Run, fails: Fails, home: Path) -> None:
    import tiny_nets

    model = aliasfix.convert(tiny_nets.make_net(), exclude=["3"])
    torch.save({"state_dict": nn.DataParallel(model).state_dict()}, "trained.pth")
    assert "converted at 1 places, and not by this recipe" in fails(
        "convert", NET, "--checkpoint", "trained.pth", "-o", "out.pth"
    )
    assert run("convert", NET, "--checkpoint", "trained.pth", "--exclude", "3", "-o", "out.pth").exit_code == 0


def test_verify(run: Run, fails: Fails, home: Path) -> None:
    run("convert", NET, "-o", "out.pth")
    result = run("verify", "out.pth", "--model", NET)
    assert result.exit_code == 0
    assert "delta1 gives the original's output" in result.stdout
    assert json.loads(run("verify", "out.pth", "--model", NET, "--json").stdout)["ok"]
    assert "does not say how its model is built" in fails("verify", "out.pth")
    assert "give that, too" in fails("verify", "out.pth", "--arg", "classes=3", code=2)
    assert "fit Sequential" in fails("verify", "out.pth", "--model", "tiny_nets:make_still_net")


def test_revert(run: Run, fails: Fails, home: Path, tree: Path) -> None:
    before = torch.load("runs/a.pth")
    torch.save({"model": before, "epoch": 3}, "trained.pth")
    run("convert", NET, "--checkpoint", "trained.pth", "-o", "out.pth")
    result = run("revert", "out.pth", "-o", "plain.pth")
    assert result.exit_code == 0
    content = torch.load("plain.pth")
    assert content.keys() == {"model", "epoch"}
    assert all(torch.equal(value, before[key]) for key, value in content["model"].items())
    assert "was not converted" in fails("revert", "plain.pth", "-o", "x.pth")


def test_lists(run: Run, fails: Fails) -> None:
    assert "strided_conv" in run("list", "rules").stdout
    rows = dict(line.split("  ", 1) for line in run("list", "filters").stdout.splitlines())
    assert rows["tri3"].strip() == "at stride 2: 0.25 0.5 0.25"
    listed = json.loads(run("list", "models", "*:resnet18", "--json").stdout)
    assert listed == ["timm:resnet18", "torchvision:resnet18"]
    assert "choose one of rules, filters, methods, models" in fails("list", "recipes", code=2)


@pytest.mark.parametrize("command", ["convert", "inspect", "export", "finetune", "compare"])
def test_help_fits_a_screen_and_the_rest_is_one_option_away(run: Run, command: str) -> None:
    short, whole = run(command, "--help").stdout, run(command, "--help-all").stdout
    assert len(short.splitlines()) <= 50
    assert "--filter" in short or command == "compare"
    assert "--stem" in short
    assert "  --stem paper|" not in short
    assert "  --stem paper|" in whole


def test_list_alone_says_what_can_be_listed(run: Run) -> None:
    names = [line.split()[0] for line in run("list").stdout.splitlines()]
    assert names == ["rules", "filters", "methods", "models", "formats"]


def test_a_directory_without_weights_is_named_with_what_to_give(fails: Fails, home: Path) -> None:
    (home / "empty").mkdir()
    for target in ("empty", "empty/"):
        for command in (("convert", target, "-o", "out.pth"), ("compare", target, NET, "--images", "empty")):
            assert "without weights that are known" in (text := fails(*command))
            assert "--checkpoint FILE" in text
    assert "no weights in the directory empty" in fails("convert", NET, "--checkpoint", "empty", "-o", "out.pth")
