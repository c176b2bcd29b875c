"""``aliasfix export``: what is written computes what the model computes, or nothing is written."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

import aliasfix
from aliasfix.files import exporting

from ..drawing import images, needs_onnx, scale_error
from .conftest import said

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"


@pytest.fixture
def saved(home: Path) -> nn.Module:
    """A converted net, in ``net.pth``."""
    import tiny_nets  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model: nn.Module = aliasfix.convert(tiny_nets.make_net(), "bin5").eval()
    aliasfix.save(model, home / "net.pth")
    return model


def computes(path: Path, x: Tensor) -> Tensor:
    """What the exported file returns."""
    if path.suffix == ".pt2":
        found: Tensor = torch.export.load(path).module()(x)
        return found
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("name", [pytest.param("out.onnx", marks=needs_onnx), "out.pt2"])
@torch.no_grad()
def test_a_converted_file_is_exported(run: Run, home: Path, saved: nn.Module, name: str) -> None:
    options = ("--checkpoint", "net.pth", "--input-size", "3,32,48", "-o", name)
    result = run("export", NET, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{name}: its output in ")
    assert said(result.stderr) == ""
    assert scale_error(saved(images(1, (32, 48))), computes(home / name, images(1, (32, 48)))) <= 1e-5
    result = run("export", NET, *options, "--dynamic", "batch,size", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    for x in (images(3, (32, 48)), images(5, (41, 90))):
        assert scale_error(saved(x), computes(home / name, x)) <= 1e-5
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["net.pth", name, "tiny_nets.py"]


@torch.no_grad()
def test_directories_and_models_are_exported(run: Run, home: Path) -> None:
    small, x = ("timm:resnet18", "--arg", "channels=[4, 4, 8, 8]"), images(1, (64, 64))
    run("convert", *small, "--random-weights", "-o", "out/")
    result = run("export", "out", "--input-size", "3,64,64", "-o", "out.pt2")
    assert result.exit_code == 0, result.output
    assert scale_error(aliasfix.load("out")(x), computes(home / "out.pt2", x)) <= 1e-5
    run("revert", "out", "-o", "plain.pth")
    options = ("--checkpoint", "plain.pth", "--filter", "rect2", "--input-size", "3,64,64")
    assert run("export", *small, *options, "-o", "two.pt2").exit_code == 0
    expected = aliasfix.convert(aliasfix.revert(aliasfix.load("out")), "rect2")(x)
    assert scale_error(expected, computes(home / "two.pt2", x)) <= 1e-5


def test_wrong_usage(fails: Fails, saved: nn.Module) -> None:
    assert "the suffix tells the format, .onnx or .pt2" in fails("export", NET, "-o", "out.pth", code=2)
    assert "--dynamic time: choose of batch, size" in fails("export", NET, "-o", "out.pt2", "--dynamic", "time", code=2)
    assert "are those of a model" in fails("export", "net.pth", "--arg", "a=1", "-o", "out.pt2", code=2)
    both = ("--checkpoint", "net.pth", "--random-weights")
    assert "exclude each other" in fails("export", NET, *both, "-o", "out.pt2", code=2)


def test_failures(run: Run, fails: Fails, saved: nn.Module, home: Path) -> None:
    assert "aliasfix export MODEL --checkpoint net.pth" in fails("export", "net.pth", "-o", "out.pt2")
    assert "no such directory: nowhere" in fails("export", NET, "-o", "nowhere/out.pt2")
    checkpoint = ("--checkpoint", "net.pth", "-o", "out.pt2")
    assert "another recipe: filter 'bin5', not 'rect2'" in fails("export", NET, *checkpoint, "--filter", "rect2")
    run("revert", "net.pth", "-o", "plain.pth")
    assert "plain.pth was not converted by aliasfix: convert it first" in fails("export", "plain.pth", "-o", "out.pt2")
    result = run("export", "tiny_nets:make_still_net", "--input-size", "3,1,1", "-o", "out.pt2")
    assert result.exit_code == 3
    assert not (home / "out.pt2").exists()


class Branching(nn.Module):
    """A model whose output decides how it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return x + 1 if float(x.sum()) > 0 else x - 1


class Fixed(nn.Module):
    """A model of one batch size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Drawing(nn.Module):
    """A model whose output is another one each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


FAULTS = [
    (Branching(), (), "Branching cannot be exported"),
    (Fixed(), ("batch",), "it may need a fixed batch"),
    (Drawing(), (), "is not written: its output differs from the model's"),
]


@pytest.mark.parametrize(("model", "dynamic", "expected"), FAULTS, ids=lambda value: type(value).__name__)
def test_what_cannot_be_exported_leaves_nothing(
    tmp_path: Path, model: nn.Module, dynamic: tuple[str, ...], expected: str
) -> None:
    model.train()
    for name in ("out.pt2", "out.onnx"):
        with pytest.raises(aliasfix.AliasfixError, match=expected):
            exporting.export(model, tmp_path / name, example_input=torch.ones(2, 3, 8, 8), dynamic=dynamic)
    assert list(tmp_path.iterdir()) == []
    assert model.training


@needs_onnx
def test_an_onnx_file_without_onnxruntime(
    run: Run, home: Path, saved: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--checkpoint", "net.pth", "--input-size", "3,32,48", "-o", "out.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "out.onnx was not run: onnxruntime is not installed" in run("export", NET, *options).stderr
    assert (home / "out.onnx").exists()


def test_onnx_that_is_not_installed(home: Path) -> None:
    hidden = "import sys; sys.modules['onnxscript'] = None; from aliasfix.cli import main; main()"
    command = ("export", NET, "--input-size", "3,32,32", "-o", "out.onnx")
    done = subprocess.run([sys.executable, "-c", hidden, *command], cwd=home, capture_output=True, text=True)
    assert done.returncode == 1
    assert said(done.stderr) == 'aliasfix: error: onnxscript is not installed: pip install "aliasfix[onnx]"\n'
