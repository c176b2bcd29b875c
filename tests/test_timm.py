"""timm opens a converted directory once aliasfix is imported, and refuses it otherwise."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

import aliasfix
from aliasfix.files import registration
from aliasfix.files.record import Record

from . import drawing
from .drawing import draw
from .nets import Net

NAME = "mobilenetv3_small_050"


images = functools.partial(drawing.images, size=(64, 64))


def converted(**args: Any) -> nn.Module:
    torch.manual_seed(0)
    return aliasfix.convert(draw(timm.create_model(NAME, **args)), inplace=True)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return converted(num_classes=7)


@pytest.fixture(scope="module")
def out(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "out"
    aliasfix.save(model, path)
    return path


def create(path: Path, pretrained: bool = True, **args: Any) -> nn.Module:
    return timm.create_model(f"local-dir:{path}", pretrained=pretrained, **args).eval()


@torch.no_grad()
def test_timm_opens_a_directory(model: nn.Module, out: Path) -> None:
    opened = create(out)
    assert torch.equal(opened(images()), model(images()))
    assert type(opened) is type(model)
    assert aliasfix.report(opened) == aliasfix.report(model)
    assert timm.data.resolve_data_config(model=opened) == timm.data.resolve_data_config(model=model)
    untrained = create(out, pretrained=False)
    assert aliasfix.report(untrained) == aliasfix.report(model)
    assert not torch.equal(untrained(images()), model(images()))


@torch.no_grad()
def test_another_head_and_other_channels(model: nn.Module, out: Path) -> None:
    opened = create(out, num_classes=3, in_chans=1)
    assert opened(images(channels=1)).shape == (2, 3)
    own, kept = model.state_dict(), opened.state_dict()
    assert torch.equal(kept["blocks.0.0.conv_dw.weight"], own["blocks.0.0.conv_dw.weight"])
    assert torch.allclose(kept["conv_stem.weight"], own["conv_stem.weight"].sum(1, keepdim=True))


@torch.no_grad()
def test_a_model_of_torchvision_opens_in_timm(tmp_path: Path) -> None:
    import torchvision

    net = aliasfix.convert(draw(torchvision.models.squeezenet1_1(num_classes=5)))
    aliasfix.save(net, tmp_path / "out", base="torchvision:squeezenet1_1", base_args={"num_classes": 5})
    opened = create(tmp_path / "out", drop_rate=0.0, num_classes=None)  # as timm's scripts pass them on
    assert torch.equal(opened(images()), net(images()))
    assert opened.num_classes == 5
    assert timm.data.resolve_data_config(model=opened)["input_size"] == (3, 224, 224)
    with pytest.raises(aliasfix.AliasfixError, match="weights for 5 classes, not 3"):
        create(tmp_path / "out", num_classes=3)


@torch.no_grad()
def test_what_timm_opened_is_saved_again_by_both(model: nn.Module, out: Path, tmp_path: Path) -> None:
    opened = create(out)
    aliasfix.save(opened, tmp_path / "ours")
    timm.models._hub.save_for_hf(opened, tmp_path / "timms", safe_serialization=True)
    for path in (tmp_path / "ours", tmp_path / "timms"):
        assert torch.equal(aliasfix.load(path)(images()), model(images()))
        assert torch.equal(create(path)(images()), model(images()))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"out_indices": (1, 3)}], ids=str)
def test_features_only(model: nn.Module, out: Path, options: dict[str, Any]) -> None:
    """The maps are those of the base's stages, converted, at the stages that timm takes by itself or is told."""
    opened = create(out, features_only=True, **options)
    base = timm.create_model(NAME, features_only=True, **options).eval()
    base.load_state_dict(model.state_dict(), strict=False)
    expected, found = aliasfix.convert(base)(images()), opened(images())
    assert len(found) == len(options.get("out_indices", range(5)))
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert not torch.allclose(base(images())[-1], found[-1], atol=1e-3)
    assert opened.feature_info.channels() == base.feature_info.channels()
    assert opened.feature_info.reduction() == base.feature_info.reduction()
    assert aliasfix.report(opened.model) == aliasfix.report(model)


def test_features_only_that_cannot_be_had(out: Path, tmp_path: Path) -> None:
    with pytest.raises(aliasfix.AliasfixError, match="takes out_indices=, not feature_cls=: build the base"):
        create(out, features_only=True, feature_cls="hook")
    import torchvision

    net = aliasfix.convert(torchvision.models.squeezenet1_1())
    aliasfix.save(net, tmp_path / "out", base="torchvision:squeezenet1_1")
    with pytest.raises(aliasfix.AliasfixError, match="squeezenet1_1 has no forward_intermediates: build the base"):
        create(tmp_path / "out", features_only=True)

    class Stages(Net):
        def forward_intermediates(self, x: torch.Tensor) -> None:
            """It would not run the function calls of ``forward_features``, which are converted."""

    net = aliasfix.convert(Stages())
    with pytest.raises(aliasfix.AliasfixError, match="calls in its own forward what is converted: build the base"):
        registration._features(net, Record(aliasfix.report(net), "timm:stages"), {})


def test_a_link_is_refused_by_timm_too(out: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((out / "config.json").read_bytes())
    (tmp_path / "model.safetensors").symlink_to(out / "model.safetensors")
    with pytest.raises(aliasfix.AliasfixError, match="is a link"):
        create(tmp_path)


def test_timm_is_given_no_other_weights_than_those_saved(model: nn.Module, out: Path, tmp_path: Path) -> None:
    path = tmp_path / "out"
    shutil.copytree(out, path)
    with safetensors.safe_open(path / "model.safetensors", "pt") as file:
        metadata, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state["classifier.bias"][0] += 1
    safetensors.torch.save_file(state, path / "model.safetensors", metadata)
    with pytest.raises(aliasfix.AliasfixError, match="its weights are not those"):
        create(path)
    other = aliasfix.convert(aliasfix.revert(model), "bin5")
    aliasfix.save(other, tmp_path / "other", base=f"timm:{NAME}", base_args={"num_classes": 7})
    os.replace(tmp_path / "other" / "model.safetensors", path / "model.safetensors")
    with pytest.raises(aliasfix.AliasfixError, match="of two conversions: filter 'tri3', not 'bin5'"):
        create(path)


def test_arguments_of_an_attacker_fetch_nothing(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "out"
    shutil.copytree(out, path)
    config = json.loads((path / "config.json").read_text())
    config["model_args"]["weights"] = "/etc/passwd"
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(aliasfix.AliasfixError, match="name weights to fetch, which is refused: weights"):
        create(path)


@torch.no_grad()
def test_a_model_that_refuses_weights_without_versions(tmp_path: Path) -> None:
    import torchvision

    net = aliasfix.convert(draw(torchvision.models.mnasnet0_5()))
    aliasfix.save(net, tmp_path / "out", base="torchvision:mnasnet0_5")
    for opened in (aliasfix.load(tmp_path / "out"), create(tmp_path / "out")):
        assert torch.equal(opened(images()), net(images()))


def test_the_name_alone_says_where_it_comes_from() -> None:
    with pytest.raises(aliasfix.AliasfixError, match="local-dir:PATH"):
        timm.create_model("aliasfix")


def process(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_plain_timm_refuses_the_directory(out: Path) -> None:
    done = process("import sys, timm; timm.create_model('local-dir:' + sys.argv[1], pretrained=True)", out)
    assert done.returncode == 1
    assert "Unknown model (aliasfix)" in done.stderr


ORDERS = [
    pytest.param("import aliasfix, timm", marks=pytest.mark.slow),
    pytest.param("import timm, aliasfix", marks=pytest.mark.slow),
    "import aliasfix; from timm import create_model; import timm",
]


@pytest.mark.parametrize("order", ORDERS)
def test_the_name_is_registered_in_every_order_of_imports(order: str) -> None:
    script = f"{order}; assert timm.is_model('aliasfix'); assert timm.list_models('aliasfix') == ['aliasfix']"
    done = process(script)
    assert done.returncode == 0, done.stderr


def test_importing_aliasfix_imports_no_timm_and_needs_none() -> None:
    hidden = "import sys; sys.modules['timm'] = None; import aliasfix, torch; aliasfix.convert(torch.nn.MaxPool2d(2))"
    for script in ("import aliasfix, sys; assert 'timm' not in sys.modules", hidden):
        done = process(script)
        assert done.returncode == 0, done.stderr


def test_the_configuration_is_timms(out: Path) -> None:
    config = json.loads((out / "config.json").read_text())
    assert config["architecture"] == "aliasfix"
    assert config["num_classes"] == 7
    assert config["pretrained_cfg"]["input_size"] == [3, 224, 224]
    assert config["model_args"]["record"]["base"] == f"timm:{NAME}"
