"""Models: which one a name means, how it is built, and what is said where that fails."""

import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from torch import nn

from aliasfix import AliasfixError
from aliasfix.files.models import Source, build, find

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

def make_net(width=4):
    return Net(width)

def broken():
    raise ValueError("the first line\\nand more")

def make_text():
    return "text"

number = 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's, ``tiny_package.nets``."""
    package = tmp_path / "tiny_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NETS)
    (package / "unfinished.py").write_text("def make_net(:\n")
    (package / "needing.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("tiny_package")]:
        monkeypatch.delitem(sys.modules, name)
    return "tiny_package.nets"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network and empty caches, whatever the machine has."""
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", closed)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", closed)


@pytest.mark.parametrize(
    ("spec", "library", "also"),
    [
        ("timm:resnet18", "timm", None),
        ("torchvision:resnet18", "torchvision", None),
        ("resnet18", "timm", "torchvision"),
        ("alexnet", "torchvision", None),
        ("mobilenetv3_small_050", "timm", None),
        ("timm:resnet50.a1_in1k", "timm", None),
    ],
)
def test_names(spec: str, library: str, also: str | None) -> None:
    assert find(spec) == Source(library, spec.rpartition(":")[2], also)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet81", ["'resnet81' in timm or torchvision", "resnet18"]),
        ("ResNet18", ["resnet18"]),
        ("timm:resnet5", ["timm has no model 'resnet5'", "resnet50"]),
        ("torchvision:resnet5", ["torchvision has no model 'resnet5'", "resnet50"]),
        ("timm:", ["timm has no model ''"]),
        ("", ["package.module:factory"]),
        ("qqqqqqqq", ["package.module:factory"]),
        (":", ["package.module:factory"]),
        (".relative:make_net", ["package.module:factory"]),
        ("a path/nets:make_net", ["package.module:factory"]),
        ("no_such_package.nets:make_net", ["no module 'no_such_package'"]),
        ("tiny_package.nowhere:make_net", ["no module 'tiny_package.nowhere'"]),
        ("tiny_package.nets:make_nest", ["no factory 'make_nest'", "make_net"]),
        ("tiny_package.nets:number", ["no factory 'number'"]),
        ("tiny_package.nets:", ["package.module:factory"]),
        ("tiny_package.unfinished:make_net", ["cannot be imported: SyntaxError"]),
        ("tiny_package.needing:make_net", ["cannot be imported", "a_module_that_is_not_installed"]),
    ],
)
def test_names_of_nothing(nets: str, spec: str, expected: list[str]) -> None:
    with pytest.raises(AliasfixError) as error:
        find(spec)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in expected)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # import then fails as for a missing module
    with pytest.raises(AliasfixError, match="timm is not installed: pip install timm"):
        find("timm:resnet18")
    assert find("resnet18") == Source("torchvision", "resnet18")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(AliasfixError, match="neither timm nor torchvision is installed"):
        find("resnet18")


def test_arguments_reach_the_factory(nets: str) -> None:
    assert build("timm:resnet10t", {"num_classes": 7, "in_chans": 1}, pretrained=False).fc.out_features == 7
    assert build("torchvision:resnet18", {"num_classes": 7}, pretrained=False).fc.out_features == 7
    assert build(f"{nets}:make_net", {"width": 7}).conv.out_channels == 7
    assert build(f"{nets}:Net").conv.out_channels == 4


@pytest.mark.parametrize(
    ("spec", "args", "expected"),
    [
        ("timm:resnet10t", {"depth": 7}, "timm:resnet10t(depth=7) cannot be built: TypeError"),
        ("torchvision:resnet18", {"depth": 7}, "torchvision:resnet18(depth=7) cannot be built: TypeError"),
        ("timm:resnet50.a1_in2k", {}, "timm has no weights 'resnet50.a1_in2k'; close to it: resnet50.a1_in1k"),
        ("tiny_package.nets:broken", {}, "nets:broken() cannot be built: ValueError: the first line"),
        ("tiny_package.nets:make_text", {}, "made a str, not a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_built(nets: str, spec: str, args: dict[str, int], expected: str) -> None:
    with pytest.raises(AliasfixError) as error:
        build(spec, args, pretrained=False)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec", ["timm:resnet10t", "torchvision:resnet18"])
def test_weights_that_cannot_be_fetched(offline: None, spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    began, setting = time.monotonic(), huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(AliasfixError) as error:
        build(spec)
    assert str(error.value).startswith(f"the pretrained weights of {spec} could not be fetched")
    assert str(error.value).endswith("give --checkpoint FILE or --random-weights")
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 15  # the hub's client alone tries for 50 s
    assert "Retrying" not in capfd.readouterr().err
    assert setting == huggingface_hub.constants.HF_HUB_OFFLINE


def test_weights_that_timm_does_not_have() -> None:
    with pytest.raises(AliasfixError, match="timm has no pretrained weights for seresnet50t: give --checkpoint"):
        build("timm:seresnet50t")


def test_a_torchvision_model_with_other_classes_has_no_pretrained_weights(offline: None) -> None:
    with pytest.raises(AliasfixError, match="num_classes"):
        build("torchvision:resnet18", {"num_classes": 7})


def test_pretrained_weights_are_loaded(offline: None, tmp_path: Path) -> None:
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    net = torchvision.models.squeezenet1_1()
    torch.save(net.state_dict(), cache / torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2])
    assert equal(build("torchvision:squeezenet1_1"), net)
    net = timm.create_model("mobilenetv3_small_050")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    overlay = {"file": str(tmp_path / "net.pth"), "hf_hub_id": None}
    assert equal(build("timm:mobilenetv3_small_050", {"pretrained_cfg_overlay": overlay}), net)


def test_a_model_without_pretrained_weights_fetches_nothing(offline: None) -> None:
    """Torchvision's detectors and segmenters fetch their backbone's weights if they are not told otherwise."""
    build("torchvision:lraspp_mobilenet_v3_large", pretrained=False)


def test_what_torchvision_says_of_its_own_defaults_is_not_passed_on() -> None:
    build("torchvision:googlenet", pretrained=False)  # warns that its init_weights will change


def equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))
