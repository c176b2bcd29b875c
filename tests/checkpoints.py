"""A small net, and what the tests of checkpoints ask of its files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from aliasfix.files.checkpoint import read_checkpoint
from aliasfix.files.loading import load_weights
from aliasfix.files.record import Record
from aliasfix.planning.plan import Plan
from aliasfix.recipe import Recipe

PLAN = Plan(Recipe("tri3"), ())
RECORD = Record(PLAN, "timm:resnet18", {"num_classes": 3}, "0").to_dict()


def net(classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def same(left: object, right: object) -> bool:
    """Whether two nests of dicts, lists and tensors are equal."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return left == right


def loads(path: Path, seed: int = 0, name: str = "net") -> bool:
    """Whether a file has the weights of ``net(seed=seed)``."""
    model = net(seed=99)
    load_weights(model, read_checkpoint(path), name)
    return same(dict(model.state_dict()), dict(net(seed=seed).state_dict()))


def message(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text
