"""A package of the user's, and a command line to call."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aliasfix.cli import app

Run = Callable[..., Result]


def said(stderr: str) -> str:
    """What a command says, without how far it was on a machine that took a second."""
    return re.sub(r"^aliasfix: .* …( \(.*\))?\n", "", stderr, flags=re.MULTILINE)


NETS = """
import torch
from torch import nn

def make_net(classes=3, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )

def make_chatty_net():
    print("building a net")
    return make_net()

def make_still_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 3))

def make_mixed_net():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.body = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
            self.branch = nn.Conv2d(4, 4, 4, stride=4)
        def forward(self, x):
            x = self.stem(x)
            return self.body(x) + self.branch(x)
    return Mixed()

def make_compiled_net():
    return torch.compile(make_net())

def make_parallel_net():
    return nn.DataParallel(make_net())

def make_scripted_net():
    return torch.jit.script(make_net())

def make_traced_net():
    return torch.fx.symbolic_trace(make_net())
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the user's ``tiny_nets.py`` in it."""
    (tmp_path / "tiny_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_nets", raising=False)
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    """Call the command line in this process."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def fails(run: Run, home: Path) -> Callable[..., str]:
    """Call the command line, which must end in one line of error, and write nothing."""

    def fails(*arguments: object, code: int = 1) -> str:
        before = {path: path.read_bytes() for path in home.iterdir() if path.is_file()}
        result = run(*arguments)
        errors = [line for line in result.stderr.splitlines() if line.startswith("aliasfix: error: ")]
        assert result.exit_code == code, result.output
        assert len(errors) == 1
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        assert {path: path.read_bytes() for path in home.iterdir() if path.is_file()} == before
        return errors[0]

    return fails
