"""Equality with the paper author's own package, given the same weights."""

import antialiased_cnns
import pytest
import torch
import torchvision
from torch import nn

import aliasfix

from .drawing import draw, scale_error

FILTERS = {2: "rect2", 3: "tri3", 4: "bin4", 5: "bin5"}

# Inputs at which no map is too small to reflect, where the package fails. DenseNet's maps must be even too:
# there the package gives one sample more than the average pooling that it replaces.
SIZES = {
    "alexnet": (195, 163),
    "vgg16_bn": (96, 112),
    "resnet18": (128, 130),
    "resnet50": (128, 130),
    "densenet121": (128, 160),
    "mobilenet_v2": (128, 130),
}


@pytest.fixture(scope="module", params=SIZES)
def original(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """An architecture's name and torchvision's model of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(torchvision.models, request.param)(weights=None, **_uninitialised(request.param))
    if request.param.startswith("resnet"):  # the package pools its stem so; its author calls that a mistake
        model.maxpool = nn.MaxPool2d(2, 2)
    return request.param, draw(model, _images(request.param, seed=1))


@pytest.mark.parametrize("size", FILTERS)
@torch.no_grad()
def test_equals_the_reference(original: tuple[str, nn.Module], size: int) -> None:
    architecture, model = original
    average = "replace" if architecture == "densenet121" else "keep"
    converted = aliasfix.convert(model, FILTERS[size], average=average)
    reference = getattr(antialiased_cnns, architecture)(filter_size=size, **_uninitialised(architecture))
    _load_in_order(reference, model)
    x = _images(architecture, seed=2)
    expected = reference.eval()(x)
    assert scale_error(expected, converted(x)) <= 1e-5
    assert scale_error(expected, model(x)) > 1e-2


def _uninitialised(architecture: str) -> dict[str, bool]:
    """VGG's own initialisation takes seconds, and its weights are drawn here."""
    return {"init_weights": False} if architecture == "vgg16_bn" else {}


def _images(architecture: str, seed: int) -> torch.Tensor:
    return torch.randn(2, 3, *SIZES[architecture], generator=torch.Generator().manual_seed(seed))


def _load_in_order(reference: nn.Module, original: nn.Module) -> None:
    """Give ``reference`` the original's weights and statistics, taken in order; its own filters stay."""
    state = reference.state_dict()
    theirs = [key for key in state if not key.endswith("filt")]
    ours = list(original.state_dict().values())
    assert 0 < len(theirs) < len(state)
    assert [state[key].shape for key in theirs] == [value.shape for value in ours]
    reference.load_state_dict(state | dict(zip(theirs, ours, strict=True)))
