"""What one process saves another loads, bit for bit: every architecture of the zoo test, in every format.

One child process loads them all, since it takes longer to import torch than to load a model.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import aliasfix

from .drawing import draw
from .test_architectures import ARCHITECTURES, build, images

FORMATS = ("{}", "{}.safetensors", "{}.pth")
SAMPLE = ["torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x1_0", "timm:repvgg_a0", "timm:regnety_004"]

_CHILD = """
import sys, torch, aliasfix
torch.set_num_threads(1)
for line in sys.stdin:
    path, expected = line.rstrip("\\n").split("\\t")
    x, output = torch.load(expected)
    with torch.no_grad():
        equal = torch.equal(aliasfix.load(path)(x), output)
    print(path, "equal" if equal else "differs", flush=True)
"""


def identical(folder: Path, names: list[str]) -> None:
    """Save each architecture in each format, and have one other process load them."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _CHILD],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for number, name in enumerate(names):
            model, size = build(name)
            draw(model, images(2 if "inception" in name else 1, size))
            aliasfix.convert(model, inplace=True, example_input=images(1, size))
            x = images(1, size)
            with torch.no_grad():
                torch.save((x, model.eval()(x)), folder / "expected")
            for form in FORMATS:
                path = folder / form.format(f"net{number}")
                aliasfix.save(model, path, base=name, example_input=x)
                child.stdin.write(f"{path}\t{folder / 'expected'}\n")
                child.stdin.flush()
                answer = child.stdout.readline()
                assert answer == f"{path} equal\n", (name, answer)
                _remove(path)
        child.stdin.close()
    assert child.returncode == 0


def _remove(path: Path) -> None:
    for file in [*path.iterdir(), path] if path.is_dir() else [path]:
        file.rmdir() if file.is_dir() else file.unlink()


@pytest.mark.slow
def test_four_architectures_in_every_format(tmp_path: Path) -> None:
    identical(tmp_path, SAMPLE)


@pytest.mark.slow
def test_every_architecture_in_every_format(tmp_path: Path) -> None:
    identical(tmp_path, ARCHITECTURES)
