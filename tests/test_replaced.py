"""A converted model notices that a part of it was replaced, and does not mind what only wraps a part."""

import copy
import functools
import io
import pickle

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.utils.model import reparameterize_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torchvision.models.feature_extraction import create_feature_extractor

import aliasfix
from aliasfix.edits.watch import Watch

from .drawing import draw, images, scale_error
from .nets import Net

LOST = "replace, fuse or reparameterize modules before aliasfix.convert"


def resnet() -> nn.Module:
    """Hooks on activations, strides of convolutions and a rewritten pool."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", channels=(8, 8, 16, 16))
    return aliasfix.convert(draw(model), "bin5", inplace=True, example_input=images())


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        ("layer2.0.act1", nn.GELU(), "layer2.0.act1 was converted and is now a GELU without its blur"),
        (
            "maxpool",
            nn.MaxPool2d(3, 2, 1),
            "maxpool was converted and is now a MaxPool2d without its rewritten forward",
        ),
        ("layer2.0", nn.Identity(), "layer2.0.conv1 was converted and is gone"),
        (
            "layer3.0.conv1",
            nn.Conv2d(8, 16, 3, 2, 1),
            "layer3.0.conv1 was converted and is now a Conv2d without stride",
        ),
    ],
)
@torch.no_grad()
def test_a_replaced_module_is_named(path: str, new: nn.Module, said: str) -> None:
    model = resnet()
    model(images())
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(aliasfix.AliasfixError, match=f"{said}.*{LOST}"):
            each(images())


@torch.no_grad()
def test_a_lost_method_is_noticed() -> None:
    model = aliasfix.convert(draw(Net()), inplace=True, example_input=images())
    hosts = [module for module in model.modules() if "forward" in module.__dict__]
    del hosts[0].forward
    with pytest.raises(aliasfix.AliasfixError, match=LOST):
        model(images())


@torch.no_grad()
def test_a_compiler_meets_the_error_too() -> None:
    model = resnet()
    model.layer2[0].act1 = nn.GELU()
    with pytest.raises(aliasfix.AliasfixError, match=LOST):
        torch.export.export(model, (images(),), strict=False)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"AliasfixError|layer2\.0\.act1"):
        torch.compile(model, backend="eager", fullgraph=True)(images())


@torch.no_grad()
def test_a_wrapped_module_is_found() -> None:
    model = resnet()
    expected = model(images())
    model.layer2[0] = checkpoint_wrapper(model.layer2[0])
    model.layer3 = torch.compile(model.layer3, backend="eager")
    forward = model.layer4[0].act1.forward
    model.layer4[0].act1.forward = functools.wraps(forward)(lambda x: forward(x))
    for _ in range(2):
        assert scale_error(expected, model(images())) <= 1e-6


@torch.no_grad()
def test_a_function_around_a_rewritten_method_is_no_loss() -> None:
    model = resnet()
    expected = model(images())
    inner = model.maxpool.forward
    for around in (lambda x: inner(x), functools.partial(inner), functools.wraps(inner)(lambda *args: inner(*args))):
        model.maxpool.forward = around
        assert torch.equal(expected, model(images()))
    model.maxpool.forward = functools.partial(nn.functional.max_pool2d, kernel_size=3, stride=2, padding=1)
    with pytest.raises(aliasfix.AliasfixError, match="maxpool"):
        model(images())


@torch.no_grad()
def test_a_reparameterized_network_is_refused_and_before_converting_is_right() -> None:
    torch.manual_seed(0)
    original = draw(timm.create_model("fastvit_t8"), images(2, (64, 64)))
    x = images(2, (64, 64))
    converted = aliasfix.convert(original, "delta1", example_input=x)
    with pytest.raises(aliasfix.AliasfixError, match=LOST):
        reparameterize_model(converted)(x)
    before = reparameterize_model(original)
    assert scale_error(before(x), aliasfix.convert(before, "delta1", example_input=x)(x)) <= 1e-5


@torch.no_grad()
def test_what_keeps_the_parts_still_works() -> None:
    model = resnet()
    expected = model(images())
    frozen = freeze_batch_norm_2d(copy.deepcopy(model))
    assert scale_error(expected, frozen(images())) <= 1e-6
    synced = convert_sync_batchnorm(copy.deepcopy(model)).eval()
    assert scale_error(expected, synced(images())) <= 1e-6
    fused = copy.deepcopy(model)
    for block in (block for layer in (fused.layer1, fused.layer2) for block in layer):
        block.conv1, block.bn1 = nn.utils.fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
    assert scale_error(expected, fused(images())) <= 1e-5


def test_revert_takes_the_check_away() -> None:
    model = resnet()
    assert sum(isinstance(hook, Watch) for hook in model._forward_pre_hooks.values()) == 1
    assert not aliasfix.revert(model, inplace=True)._forward_pre_hooks


class Around(nn.Module):
    """A network with a traced part, as `create_feature_extractor` makes."""

    def __init__(self, part: nn.Module, whole: nn.Module | None = None) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.part(x)
        return found["map"] if isinstance(found, dict) else found


def extractor() -> nn.Module:
    torch.manual_seed(0)
    model = draw(timm.create_model("resnet18", channels=(8, 8, 16, 16)))
    return create_feature_extractor(model, {"layer3": "map"})


@pytest.mark.parametrize(
    "build",
    [
        extractor,
        lambda: torch.fx.symbolic_trace(draw(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)))),
        lambda: torch.fx.symbolic_trace(draw(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2)))),
        lambda: torch.fx.symbolic_trace(draw(Net())),
    ],
    ids=["extractor", "pool", "convolution", "functions"],
)
@torch.no_grad()
def test_a_traced_part_survives_copies(build) -> None:
    model = Around(build()).eval()
    same = aliasfix.convert(model, "delta1", stem="full", example_input=images())
    assert scale_error(model(images()), same(images())) <= 1e-5
    converted = aliasfix.convert(model, "bin5", stem="full", example_input=images())
    assert not any(module.training for module in converted.modules())
    expected = converted(images())
    assert scale_error(expected, model(images())) > 1e-3
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    for twin in (copy.deepcopy(converted), torch.load(file, weights_only=False)):
        assert torch.equal(twin.eval()(images()), expected)
    assert aliasfix.verify(converted, model, example_input=images()).ok
