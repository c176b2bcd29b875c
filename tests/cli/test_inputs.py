"""What ``aliasfix convert`` is given beside state dicts: directories of transformers, programs, files of Lightning.

``data/lightning.ckpt`` was written by lightning 2.6.6 with torch 2.14.1: one epoch of a ``LightningModule`` whose
``self.model`` is ``make_net()``, with SGD, momentum and ``save_hyperparameters``.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import Result

import aliasfix

from ..checkpoints import same

Run = Callable[..., Result]
Fails = Callable[..., str]
HF = "ResNetForImageClassification"


@pytest.fixture
def hf(home: Path) -> nn.Module:
    """A model that transformers saved, in ``hf``."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    model: nn.Module = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=3))
    model.save_pretrained("hf")  # type: ignore[operator]
    return model.eval()


@torch.no_grad()
def test_a_directory_of_transformers(run: Run, home: Path, hf: nn.Module) -> None:
    result = run("convert", "hf", "-o", "out.safetensors", "--input-size", "3,64,64")
    assert result.exit_code == 0, result.output
    assert f"out.safetensors: transformers:{HF}, 7 of 8 sampling operations converted" in result.stdout
    x = torch.randn(2, 3, 64, 64)
    loaded = aliasfix.load("out.safetensors", type(hf)(hf.config)).eval()
    assert torch.equal(loaded(x).logits, aliasfix.convert(hf)(x).logits)
    named = ("--model", f"transformers:{HF}", "--arg", "config=hf", "--input-size", "3,64,64")
    assert run("verify", "out.safetensors", *named).exit_code == 0


def test_directories_of_transformers_that_are_refused(
    fails: Fails, home: Path, hf: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a directory says how its model is built" in fails("convert", "hf", "-o", "out/")
    assert "--arg config=DIR" in fails("inspect", f"transformers:{HF}")
    weightless = ("convert", f"transformers:{HF}", "--arg", "config=hf", "-o", "out.pth")
    assert "give --checkpoint FILE or --random-weights" in fails(*weightless)
    config = json.loads(Path("hf/config.json").read_text())
    for name, expected in {"Nothing": "no factory", "pipeline": "is no model", "os.system": "no model"}.items():
        Path("hf/config.json").write_text(json.dumps({**config, "architectures": [name]}))
        assert expected in fails("convert", "hf", "-o", "out.pth")
    Path("hf/config.json").write_text(json.dumps({**config, "hidden_act": "evil"}))
    assert "cannot be built: KeyError" in fails("convert", "hf", "-o", "out.pth")


def test_programs_are_refused(fails: Fails, home: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)).eval()
    program = torch.export.export(net, (torch.ones(1, 3, 8, 8),))
    torch.export.save(program, "net.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save("net.pt")
    with pytest.raises(aliasfix.AliasfixError, match=r"a program of torch\.export: convert the module"):
        aliasfix.convert(program)  # type: ignore[arg-type]
    for name, kind in {"net.pt2": "torch.export", "net.pt": "TorchScript"}.items():
        expected = f"{name} is refused: a program of {kind} stays as it is; convert the module that it was made from"
        assert expected in fails("convert", name, "-o", "out.pth")
        assert expected in fails("convert", "tiny_nets:make_net", "--checkpoint", name, "-o", "out.pth")
        assert expected in fails("inspect", name)


def test_a_checkpoint_of_lightning(run: Run, home: Path) -> None:
    """Its prefix is taken off and said, and everything that Lightning wrote is kept as it was."""
    lightning = Path(__file__).parents[1] / "data" / "lightning.ckpt"
    result = run("convert", "tiny_nets:make_net", "--checkpoint", lightning, "-o", "out.ckpt")
    assert result.exit_code == 0, result.output
    assert f"aliasfix: warning: {lightning}: its keys are read without their prefix 'model.'\n" in result.stderr
    before, after = (torch.load(path, weights_only=True) for path in (lightning, "out.ckpt"))
    assert after.pop("aliasfix")["recipe"]["filter"] == "tri3"
    assert same(before, after)
    assert before["state_dict"]["model.0.weight"].shape == (4, 3, 3, 3)
    result = run("verify", "out.ckpt", "--model", "tiny_nets:make_net")
    assert result.exit_code == 0, result.output
