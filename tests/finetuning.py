"""A small net, a folder of small images, and runs of fine-tuning on them that are killed.

``python -m tests.finetuning kill FOLDER KILLS SEED`` kills runs at random moments and lets them go on, until so many
were killed; prints what the runs ended with. ``python -m tests.finetuning once FOLDER`` is one run, for
``accelerate launch``.
"""

import hashlib
import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch import nn

import aliasfix
from aliasfix.files import checkpoint

OPTIONS = {
    "epochs": 3, "batch_size": 8, "lr": 1e-2, "ema": 0.9, "consistency": 0.3, "size": 16, "warmup_epochs": 0.5,
    "weight_decay": 0.01, "save_every": 1, "validation": 0.21,
}  # fmt: skip
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def net(classes: int = 3, dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(8, classes),
    )  # fmt: skip
    layers.eval()
    return aliasfix.convert(layers, example_input=torch.ones(2, 3, 16, 16))


def photographs(root: Path, classes: int = 3, count: int = 14) -> Path:
    """A folder of noise of another colour for each class."""
    generator = torch.Generator().manual_seed(0)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(0, 128, (20 + number, 24, 3), generator=generator)
            pixels[..., label % 3] += 100
            Image.fromarray(pixels.byte().numpy()).save(root / f"class{label}" / f"{number:02}.png")
    return root


def outcome(out: Path) -> str:
    """A hash of what a run left: the best weights, the metrics, and the weights, average and optimizer at its end."""
    state = torch.load(out / "state.pth", weights_only=True)
    total = hashlib.sha256((out / "metrics.csv").read_bytes())
    _add(total, checkpoint.read_checkpoint(out / "best.safetensors").state)
    _add(total, state)
    return total.hexdigest()


def _add(total, value) -> None:
    if isinstance(value, torch.Tensor):
        total.update(value.numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            total.update(str(key).encode())
            _add(total, value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            _add(total, each)
    else:
        total.update(repr(value).encode())


def once(folder: Path, out: str = "run") -> None:
    aliasfix.finetune(net(dropout=0.0), folder / "images", folder / out, **OPTIONS)


def killed(folder: Path, kills: int, seed: int) -> None:
    """Kill forks of this process, which have imported everything, until ``kills`` were killed at work."""
    moments, steps, runs = random.Random(seed), [], 0
    while len(steps) < kills:
        out, finished = folder / f"run{runs}", False
        while not finished:
            child = os.fork()
            if not child:
                aliasfix.finetune(net(), folder / "images", out, **OPTIONS, resume=True)
                os._exit(0)
            if len(steps) < kills:
                until = _step(out, "state") + moments.randint(
                    0, 3
                )  # evaluating, training or saving, wherever it is then
                while _step(out, "metrics") < until and os.waitid(os.P_PID, child, _LOOK) is None:
                    time.sleep(0.001)
                time.sleep(moments.uniform(0.0, 0.05))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            finished = os.WIFEXITED(status)
            assert not finished or os.WEXITSTATUS(status) == 0
            if not finished:
                steps.append(_step(out, "state"))
        print(outcome(out), flush=True)
        runs += 1
    print(*steps)


def _step(out: Path, where: str) -> int:
    """The step that a run has come to, −1 before the first: of its state, or of the last whole row of its metrics."""
    if where == "state":
        path = out / "state.pth"
        return torch.load(path, weights_only=True)["step"] if path.exists() else -1
    text = (out / "metrics.csv").read_text() if (out / "metrics.csv").exists() else ""
    rows = text.split("\n")[1:-1]
    return int(rows[-1].split(",")[0]) if rows else -1


def main(what: str, folder: str, *rest: str) -> None:
    torch.set_num_threads(1)
    if what == "once":
        once(Path(folder))
        return
    for module in ("timm.data", "timm.optim", "timm.scheduler", "timm.utils", "accelerate", "torch.utils.tensorboard"):
        importlib.import_module(module)
    killed(Path(folder), *map(int, rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
