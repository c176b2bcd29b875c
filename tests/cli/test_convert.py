"""``aliasfix convert``: from a model and its weights to a file."""

import argparse
import json
import os
import resource
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import timm.utils
import torch
import torchvision
from torch import nn
from typer.testing import Result

import aliasfix

from .conftest import said

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"


def save_net(path: Path, **args: int) -> nn.Module:
    import tiny_nets

    net: nn.Module = tiny_nets.make_net(**args)
    torch.save(net.state_dict(), path)
    return net


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".safetensors"])
def test_a_checkpoint_becomes_a_converted_one(run: Run, home: Path, suffix: str) -> None:
    net = save_net(home / "net.pth")
    result = run("convert", NET, "--checkpoint", "net.pth", "--filter", "bin5", "-o", f"out{suffix}")
    assert result.exit_code == 0
    assert said(result.stderr) == ""
    if suffix == ".safetensors":
        state = safetensors.torch.load_file(home / "out.safetensors")
        with safetensors.safe_open(home / "out.safetensors", "pt") as file:
            record = json.loads(file.metadata()["aliasfix"])
    else:
        content = torch.load(home / f"out{suffix}", weights_only=True)
        state, record = content["state_dict"], content["aliasfix"]
    assert equal(state, net.state_dict())
    assert record["base"] is None  # loading it would import code
    assert aliasfix.Recipe.from_json(json.dumps(record["recipe"])) == aliasfix.Recipe("bin5")


def test_what_is_printed(run: Run, home: Path) -> None:
    save_net(home / "net.pth")
    result = run("convert", NET, "--checkpoint", "net.pth", "-o", "out.pth")
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["path", "operation"]
    assert any(line.split()[:4] == ["2", "max_pool2d", "2x2", "convert"] for line in lines)
    assert "out.pth: tiny_nets:make_net, 2 of 2 sampling operations converted" in lines
    assert any("calibrate or fine-tune" in line for line in lines)
    assert "\x1b" not in result.output


def test_json_is_all_there_is_on_stdout(run: Run, home: Path) -> None:
    result = run("convert", "tiny_nets:make_chatty_net", "-o", "out.pth", "--json")
    data = json.loads(result.stdout)
    assert (data["converted"], data["kept"], data["output"]) == (2, 0, "out.pth")
    assert [step["path"] for step in data["plan"]["steps"]] == ["2", "3"]
    assert "building a net" in result.stderr


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        (["--stem", "keep"], {"stem": "keep"}),
        (["--stem", "full", "--padding", "zero"], {"stem": "full", "padding": "zero"}),
        (["--average", "replace"], {"average": "replace"}),
        (["--include", "2", "--include", "3"], {"include": ("2", "3")}),
        (["--exclude", "3"], {"exclude": ("3",)}),
    ],
)
def test_options_are_the_recipe(run: Run, home: Path, options: list[str], recipe: dict[str, object]) -> None:
    result = run("convert", NET, *options, "-o", "out.pth")
    assert result.exit_code == 0
    stored = torch.load(home / "out.pth", weights_only=True)["aliasfix"]["recipe"]
    assert aliasfix.Recipe.from_json(json.dumps(stored)) == aliasfix.Recipe(**recipe)


def test_a_checkpoint_of_timms_trainer(run: Run, home: Path) -> None:
    model = timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(model="mobilenetv3_small_050", num_classes=7, in_chans=1, gp=None, model_kwargs={})
    timm.utils.CheckpointSaver(
        model, optimizer, args, timm.utils.ModelEmaV3(model), checkpoint_dir=str(home), recovery_dir=str(home)
    ).save_checkpoint(0, 0.5)
    result = run("convert", "mobilenetv3_small_050", "--checkpoint", "last.pth.tar", "-o", "out.pth.tar")
    assert result.exit_code == 0, result.output
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = torch.load(home / "last.pth.tar", weights_only=True)
        after = torch.load(home / "out.pth.tar", weights_only=True)
    assert after.pop("aliasfix")["base_args"] == {"num_classes": 7, "in_chans": 1}
    assert after.keys() == before.keys()
    assert all(equal(after[key], before[key]) for key in ("state_dict", "state_dict_ema"))
    # timm resumes from it, with the optimizer's state
    model = timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    timm.models.resume_checkpoint(aliasfix.convert(model, inplace=True), str(home / "out.pth.tar"), optimizer)
    assert equal(model.state_dict(), before["state_dict"])
    buffers = [state["momentum_buffer"] for state in optimizer.state.values()]
    assert torch.equal(buffers[0], before["optimizer"]["state"][0]["momentum_buffer"])


def test_entries_that_safetensors_has_no_room_for_are_named(run: Run, home: Path) -> None:
    net = save_net(home / "net.pth")
    torch.save({"model": net.state_dict(), "epoch": 3, "optimizer": {}}, home / "trained.pth")
    result = run("convert", NET, "--checkpoint", "trained.pth", "-o", "out.safetensors")
    assert result.exit_code == 0
    assert "holds only weights, not epoch, optimizer" in result.stderr


def test_explicit_arguments_come_before_the_checkpoints(run: Run, home: Path) -> None:
    model = timm.create_model("mobilenetv3_small_050", num_classes=7)
    args = argparse.Namespace(model="mobilenetv3_small_050", num_classes=99)
    torch.save({"state_dict": model.state_dict(), "args": args}, home / "net.pth")
    result = run(
        "convert", "mobilenetv3_small_050", "--checkpoint", "net.pth", "--arg", "num_classes=7", "-o", "out.pth"
    )
    assert result.exit_code == 0, result.output


def test_random_weights_and_a_name_that_two_libraries_have(run: Run, home: Path) -> None:
    result = run("convert", "resnet18", "--random-weights", "-o", "out.pth")
    assert result.exit_code == 0
    assert said(result.stderr).strip() == (
        "aliasfix: resnet18 is taken from timm; torchvision has one too: torchvision:resnet18"
    )
    state = torch.load(home / "out.pth", weights_only=True)["state_dict"]
    assert state.keys() == timm.create_model("resnet18").state_dict().keys()


def test_a_converted_file_again(run: Run, home: Path, fails: Fails) -> None:
    run("convert", NET, "-o", "out.pth")
    assert run("convert", NET, "--checkpoint", "out.pth", "-o", "again.pth").exit_code == 0
    text = fails("convert", NET, "--checkpoint", "out.pth", "--filter", "bin5", "-o", "other.pth")
    assert "out.pth was converted with another recipe (filter 'tri3', not 'bin5')" in text


def test_nothing_to_convert(run: Run, home: Path) -> None:
    result = run("convert", "vit_tiny_patch16_224", "--random-weights", "-o", "out.pth")
    assert result.exit_code == 3
    assert "patch embedding" in result.stdout
    assert said(result.stderr) == "aliasfix: nothing to convert in timm:vit_tiny_patch16_224: nothing is written\n"
    assert not (home / "out.pth").exists()
    data = json.loads(run("convert", "tiny_nets:make_still_net", "--input-size", "3", "-o", "x.pt", "--json").stdout)
    assert (data["converted"], data["output"]) == (0, None)


def test_warnings_of_the_conversion_are_one_line(run: Run, home: Path) -> None:
    result = run("convert", "tiny_nets:make_mixed_net", "--filter", "rect2", "-o", "out.pth")
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("aliasfix: warning: ")


WRONG_USAGE = [
    (["--filter", "tri4"], "unknown filter 'tri4'; choose one of delta1, rect2, tri3"),
    (["--padding", "same"], "padding='same': choose one of reflect"),
    (["--stem", "none"], "stem='none'"),
    (["--average", "none"], "average='none'"),
    (["--arg", "classes"], "--arg classes: write it as KEY=VALUE"),
    (["--arg", "3=4"], "--arg 3=4: write it as KEY=VALUE"),
    (["--input-size", "3,x"], "--input-size 3,x: write it as"),
    (["--input-size", "3,0,8"], "--input-size 3,0,8: write it as"),
    (["--checkpoint", "net.pth", "--random-weights"], "exclude each other"),
    (["-o", "out.onnx"], "the suffix tells the format"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG_USAGE)
def test_wrong_usage(fails: Fails, options: list[str], expected: str) -> None:
    assert expected in fails("convert", NET, "-o", "out.pth", *options, code=2)


def test_a_file_in_the_models_place(fails: Fails, home: Path) -> None:
    save_net(home / "net.pth")
    text = fails("convert", "net.pth", "-o", "out.pth", code=2)
    assert "net.pth is a file: name its model, and the file as --checkpoint net.pth" in text


def test_missing_options(run: Run) -> None:
    assert run("convert", NET).exit_code == 2
    assert run("convert").exit_code == 2
    assert run("convert", NET, "-o", "out.pth", "--no-such-option").exit_code == 2


FAILURES = [
    (["resnet81", "--random-weights"], "close to it: resnet18"),
    (["no_such_module:make_net"], "no module 'no_such_module'"),
    (["tiny_nets:make_nets"], "no factory 'make_nets'; close to it: make_net"),
    ([NET, "--arg", "depth=3"], "cannot be built: TypeError"),
    ([NET, "--checkpoint", "nowhere.pth"], "no such file: nowhere.pth"),
    ([NET, "--include", "layer9*"], "'layer9*' matches no module"),
    ([NET, "--input-size", "1,32,32"], "does not run on the example input (2, 1, 32, 32)"),
    (["tiny_nets:make_compiled_net"], "the model is compiled"),
    (["tiny_nets:make_parallel_net"], "wrapped in DataParallel"),
    (["tiny_nets:make_traced_net"], "the model is an FX graph"),
    (["resnet81", "-o", "nowhere/out.pth"], "no such directory: nowhere"),  # found before the model is
    ([NET, "-o", "/sys/out.pth"], "/sys/out.pth could not be written"),
    (["resnet18", "--arg", "num_classes={1}", "--random-weights"], "cannot be built"),
]


@pytest.mark.parametrize(("options", "expected"), FAILURES)
def test_failures(fails: Fails, options: list[str], expected: str) -> None:
    assert expected in fails("convert", "-o", "out.pth", *options)


def test_a_scripted_model(fails: Fails) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is on its way out
        assert "the model is scripted" in fails("convert", "tiny_nets:make_scripted_net", "-o", "out.pth")


def test_checkpoints_that_do_not_fit(fails: Fails, home: Path) -> None:
    save_net(home / "seven.pth", classes=7)
    text = fails("convert", NET, "--checkpoint", "seven.pth", "-o", "out.pth")
    assert "only the head differs: --arg num_classes=7" in text
    torch.save(torchvision.models.squeezenet1_1().state_dict(), home / "squeeze.pth")
    text = fails("convert", NET, "--checkpoint", "squeeze.pth", "-o", "out.pth")
    assert "10 missing (0.weight, 0.bias, 3.weight, …), 52 unexpected (features.0.weight" in text


def test_a_checkpoint_of_the_other_library_or_model(fails: Fails, home: Path) -> None:
    args = argparse.Namespace(model="convnext_tiny")
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save({"model": state, "args": args}, home / "net.pth")
    text = fails("convert", "resnet18", "--checkpoint", "net.pth", "-o", "out.pth")
    assert text.endswith(
        "resnet18 is in torchvision too: try torchvision:resnet18; its trainer names the model convnext_tiny"
    )


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data.replace(b"PK", b"QQ")])
def test_damaged_checkpoints(fails: Fails, home: Path, damage: Callable[[bytes], bytes]) -> None:
    save_net(home / "net.pth")
    (home / "net.pth").write_bytes(damage((home / "net.pth").read_bytes()))
    assert "net.pth is " in fails("convert", NET, "--checkpoint", "net.pth", "-o", "out.pth")


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran",)


def test_a_pickle_that_holds_code(fails: Fails, run: Run, home: Path) -> None:
    net = save_net(home / "net.pth")
    torch.save({"state_dict": net.state_dict(), "more": Code()}, home / "net.pth")
    text = fails("convert", NET, "--checkpoint", "net.pth", "-o", "out.pth")
    assert "(posix.mkdir)" in text
    assert "--trust-pickle" in text
    assert not (home / "ran").exists()
    run("convert", NET, "--checkpoint", "net.pth", "-o", "out.pth", "--trust-pickle")
    assert (home / "ran").exists()


def test_a_full_disk(fails: Fails, home: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        for name in ("out.pth", "out.safetensors"):
            assert f"{name} could not be written: File too large" in fails("convert", NET, "-o", name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_help_shows_examples(run: Run) -> None:
    text = run("convert", "--help").stdout
    assert "  aliasfix convert resnet18 --checkpoint mine.pth --arg num_classes=10 -o mine-aliasfix.pth\n" in text
    assert "Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to convert." in run("--help").stdout
