"""The laws on real architectures: the identity under ``delta1``, shapes, classes and state_dict keys."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import aliasfix
from aliasfix.checks.account import unaccounted

from . import drawing
from .drawing import draw, scale_error

TORCHVISION = (
    *("alexnet", "vgg16_bn", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "mobilenet_v3_small"),
    *("googlenet", "inception_v3", "shufflenet_v2_x1_0", "squeezenet1_1", "efficientnet_b0"),
    *("regnet_y_400mf", "convnext_tiny", "mnasnet1_0"),
)
TIMM = (
    *("resnet50", "resnetv2_50", "resnet50d", "tf_efficientnet_lite0", "efficientnet_b0"),
    *("mobilenetv3_large_100", "regnety_004", "convnext_tiny", "densenet121", "dla34", "legacy_senet154"),
    *("nf_resnet50", "repvgg_a0", "hrnet_w18_small", "ghostnet_100"),
)
SWIN = "timm:swin_tiny_patch4_window7_224"
ARCHITECTURES = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM] + [SWIN]

QUICK = {
    *(
        "torchvision:alexnet",
        "torchvision:resnet18",
        "torchvision:mobilenet_v3_small",
        "torchvision:shufflenet_v2_x1_0",
    ),
    *("torchvision:densenet121", "timm:resnet50d", "timm:tf_efficientnet_lite0", "timm:regnety_004", "timm:dla34"),
    *("timm:repvgg_a0", "timm:convnext_tiny", SWIN),
}
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]

Size = tuple[int, int]
ODD, SMALL = (193, 250), (97, 130)
#: Architectures that refuse one of these sizes, with the sizes they are tested at instead.
INSTEAD = {
    "torchvision:alexnet": (ODD, ODD),
    "torchvision:inception_v3": (ODD, ODD),
    "timm:dla34": ((192, 256), (96, 128)),  # every side must be a multiple of 32
    "timm:hrnet_w18_small": ((192, 256), (96, 128)),
    SWIN: ((224, 224), (224, 224)),
}


@dataclass
class Converted:
    """An architecture with drawn weights, and what two conversions make of it."""

    original: nn.Module
    delta1: nn.Module
    tri3: nn.Module
    own: Size
    odd: Size
    small: Size


@pytest.fixture(scope="module", params=EACH)
def converted(request: pytest.FixtureRequest) -> Converted:
    model, own = build(request.param)
    odd, small = INSTEAD.get(request.param, (ODD, SMALL))
    draw(model, images(2, own if "inception" in request.param else small))
    delta1, tri3 = (
        aliasfix.convert(model, name, gather="blur", example_input=images(1, own)) for name in ("delta1", "tri3")
    )
    return Converted(model, delta1, tri3, own, odd, small)


def build(name: str) -> tuple[nn.Module, Size]:
    """A model with random weights, and the input size it is made for."""
    family, _, architecture = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "timm":
            model = timm.create_model(architecture, pretrained=False)
            return model, model.pretrained_cfg["input_size"][1:]
        quick = {"init_weights": False} if architecture in ("vgg16_bn", "googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(architecture, weights=None, **quick)
    return model, (299, 299) if architecture == "inception_v3" else (224, 224)


images = functools.partial(drawing.images, seed=3)


@contextlib.contextmanager
def in_double(*models: nn.Module) -> Iterator[None]:
    """Compute in float64; float32 weights come back from it as they were."""
    for model in models:
        model.double()
    try:
        yield
    finally:
        for model in models:
            model.float()


@torch.no_grad()
def assert_identity(converted: Converted, x: Tensor) -> None:
    """To 1e-5 of the output's scale. Where float32 computes the original itself less exactly than that, as some
    processors do legacy_senet154, to no more than the original is off, and to 1e-12 in float64."""
    original = converted.original(x)
    error = scale_error(original, converted.delta1(x))
    if error > 1e-5:
        with in_double(converted.original, converted.delta1):
            exact = converted.original(x.double())
            assert scale_error(exact, converted.delta1(x.double())) <= 1e-12
        assert error <= scale_error(exact.float(), original)


def test_delta1_is_the_identity_at_its_own_size(converted: Converted) -> None:
    assert_identity(converted, images(1, converted.own))


def test_delta1_is_the_identity_at_an_odd_size(converted: Converted) -> None:
    assert_identity(converted, images(1, converted.odd))


@torch.no_grad()
def test_delta1_is_the_identity_in_float64(converted: Converted) -> None:
    x = images(1, converted.small, dtype=torch.float64)
    with in_double(converted.original, converted.delta1):
        assert scale_error(converted.original(x), converted.delta1(x)) <= 1e-12


@torch.no_grad()
def test_tri3_keeps_the_shape_and_changes_the_values(converted: Converted) -> None:
    x = images(1, converted.small)
    assert scale_error(converted.original(x), converted.tri3(x)) > 1e-3


def test_class_and_keys_stay(converted: Converted) -> None:
    original, tri3 = converted.original, converted.tri3
    assert type(tri3) is type(original)
    assert list(tri3.state_dict()) == list(original.state_dict())
    assert [name for name, _ in tri3.named_parameters()] == [name for name, _ in original.named_parameters()]


def test_checkpoints_load_strictly_both_ways(converted: Converted) -> None:
    original, tri3 = converted.original, converted.tri3
    tri3.load_state_dict(original.state_dict(), strict=True)
    original.load_state_dict(tri3.state_dict(), strict=True)


def test_the_plan_names_every_step_and_reason(converted: Converted) -> None:
    plan = aliasfix.report(converted.tri3)
    assert plan.converted
    for step in plan.converted:
        assert step.form in ("dense", "blur-first", "split", "fused")
        assert step.placement
        assert step.reason is None
    for step in plan.kept:
        assert step.reason.endswith(".")
    assert plan.lattice.aligned_after == plan.lattice.aligned_before
    assert plan.lattice.drifts == ()


def test_every_strided_operation_is_accounted_for(converted: Converted) -> None:
    plan = aliasfix.report(converted.tri3)
    assert unaccounted(converted.tri3, plan, (images(1, converted.own),), {}) == []


def test_swin_lists_its_patch_merging() -> None:
    model, _ = build(SWIN)
    for gather, actions in (("keep", ["keep"] * 3), ("blur", ["convert"] * 3)):
        merging = {
            step.path: step.action for step in aliasfix.inspect(model, gather=gather) if "downsample" in step.path
        }
        assert merging == dict(zip((f"layers.{n}.downsample" for n in (1, 2, 3)), actions, strict=True))


def test_vit_has_nothing_to_convert() -> None:
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    x = images(1, (224, 224))
    with torch.no_grad():
        before = model.eval()(x)
        with pytest.warns(aliasfix.NoEffectWarning, match="patch embedding"):
            converted = aliasfix.convert(model)
        assert torch.equal(converted(x), before)
    assert aliasfix.report(converted) is None
