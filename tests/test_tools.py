"""The tools of docs/tools.md, each run on a converted model."""

import copy
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.export import Dim
from torchvision.models.feature_extraction import create_feature_extractor

import aliasfix
from aliasfix.files import exporting
from aliasfix.layers.blur import BlurPool

from . import worker
from .drawing import draw, images, needs_onnx, scale_error
from .nets import Net

ROOT = Path(__file__).parents[1]
SMALL = "mobilenetv3_small_050"


def converted(model: nn.Module, padding: str = "reflect", filter: str = "tri3") -> nn.Module:
    return aliasfix.convert(draw(model), filter, padding=padding, inplace=True, example_input=images())


def resnet(**args: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", channels=(8, 8, 16, 16), **args)


# -- ONNX ----------------------------------------------------------------------------------------------------


def onnx_output(model: nn.Module, path: Path, x: Tensor, *others: Tensor, dynamic: bool) -> list[tuple[Tensor, Tensor]]:
    """What onnxruntime and PyTorch return for the input that was exported, and for others."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    with torch.no_grad():
        return [(model(one), torch.from_numpy(session.run(None, {name: one.numpy()})[0])) for one in (x, *others)]


@needs_onnx
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize(
    "padding", ["reflect", *(pytest.param(p, marks=pytest.mark.slow) for p in ("replicate", "zero"))]
)
def test_onnx(tmp_path: Path, padding: str, dynamic: bool) -> None:
    model = converted(Net(), padding)
    others = [images(3, (81, 90)), images(1, (47, 64))] if dynamic else [images(seed=5)]
    for expected, found in onnx_output(model, tmp_path / "net.onnx", images(), *others, dynamic=dynamic):
        assert scale_error(expected, found) <= 1e-4


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", SMALL, "convnext_atto"])
def test_onnx_of_timm(tmp_path: Path, name: str) -> None:
    model = converted(timm.create_model(name))
    for expected, found in onnx_output(model, tmp_path / "net.onnx", images(), dynamic=False):
        assert scale_error(expected, found) <= 1e-4


# -- PyTorch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@torch.no_grad()
def test_torch_export_with_dynamic_batch_and_size(padding: str) -> None:
    model = converted(Net(), padding)
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    program = torch.export.export(model, (images(),), dynamic_shapes=shapes, strict=False)
    for x in (images(), images(3, (81, 90))):
        assert scale_error(model(x), program.module()(x)) <= 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_torch_compile_breaks_no_graph() -> None:
    torch._dynamo.reset()
    for model in (converted(Net()), converted(resnet())):
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert scale_error(model(images()), compiled(images())) <= 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_torch_compile_by_inductor() -> None:
    torch._dynamo.reset()
    for model in (converted(Net()), converted(resnet())):
        assert scale_error(model(images()), torch.compile(model, fullgraph=True)(images())) <= 1e-4


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@torch.no_grad()
def test_jit_trace() -> None:
    model = converted(resnet())
    traced = torch.jit.trace(model, (images(),))
    assert scale_error(model(images(seed=5)), traced(images(seed=5))) <= 1e-5


@pytest.mark.slow
def test_distributed_data_parallel_of_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.worker"]
    running = [
        subprocess.Popen([*command, str(rank), port, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=600)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    whole = worker.model()  # without batch statistics the mean of the halves' gradients is the gradient of the whole
    whole(images(4)).square().mean().backward()
    halves = [worker.model().train() for _ in (0, 1)]
    for rank, half in enumerate(halves):
        half(worker.half(rank)).square().mean().backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}-False.pt")
        for name, parameter in whole.named_parameters():
            assert scale_error(parameter.grad, found[name]) <= 1e-4, name
        found = torch.load(tmp_path / f"{rank}-True.pt")
        for (name, one), other in zip(halves[0].named_parameters(), halves[1].parameters(), strict=True):
            assert scale_error((one.grad + other.grad) / 2, found[name]) <= 1e-4, name


def test_dynamic_quantization_is_of_the_linear_layers_only() -> None:
    """torch.ao's dynamic quantization replaces linear layers; the blurs stay what they are."""
    model = converted(Net())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert aliasfix.report(quantized) == aliasfix.report(model)
    with torch.no_grad():
        assert scale_error(model(images()), quantized(images())) <= 5e-2


@needs_onnx
@pytest.mark.slow
@torch.no_grad()
def test_static_quantization_of_the_exported_file(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = converted(resnet()), images(4)
    exporting.export(model, tmp_path / "net.onnx", example_input=x, dynamic=["batch"])

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        given = iter([{"x": x.numpy()}])

        def get_next(self) -> dict[str, object] | None:
            return next(self.given, None)

    quantization.quantize_static(tmp_path / "net.onnx", tmp_path / "net8.onnx", Calibration())
    session = onnxruntime.InferenceSession(tmp_path / "net8.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    assert 1e-5 < scale_error(model(x), found) <= 0.2


def test_static_quantization_by_torch_ao_drops_blurs() -> None:
    """Why docs/tools.md sends to the exported file: a converted model must not be quantized module by module."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model = converted(resnet())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaves = PrepareCustomConfig().set_non_traceable_module_classes([BlurPool])
        prepared = prepare_fx(model, get_default_qconfig_mapping(), (images(),), prepare_custom_config=leaves)
        prepared(images())
        quantized = convert_fx(prepared)
    before, after = (sum(isinstance(m, BlurPool) for m in each.modules()) for each in (model, quantized))
    assert after < before


# -- timm and torchvision ------------------------------------------------------------------------------------


@torch.no_grad()
def test_features_only() -> None:
    original = draw(timm.create_model(SMALL, features_only=True))
    exact, model = (aliasfix.convert(original, name, example_input=images()) for name in ("delta1", "tri3"))
    assert scale_error(original(images()), exact(images())) <= 1e-5
    assert [f.shape for f in model(images())] == [f.shape for f in original(images())]
    assert scale_error(original(images()), model(images())) > 1e-3
    assert aliasfix.report(model).converted


@pytest.mark.filterwarnings("ignore::UserWarning")
@torch.no_grad()
def test_create_feature_extractor() -> None:
    model = converted(torchvision.models.mobilenet_v2(width_mult=0.25))
    extractor = create_feature_extractor(model, ["features.4", "classifier"])
    seen = []
    model.features[4].register_forward_hook(lambda *args: seen.append(args[-1]))
    expected, found = model(images()), extractor(images())
    assert scale_error(expected, found["classifier"]) <= 1e-5
    assert scale_error(seen[0], found["features.4"]) <= 1e-5


@torch.no_grad()
def test_averaged_weights_of_timm() -> None:
    model = converted(resnet())
    ema = timm.utils.ModelEmaV3(model, decay=0.5)
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.add_(1)
    ema.update(model)
    assert aliasfix.report(ema.module) == aliasfix.report(model)
    for (name, mean), old in zip(ema.module.named_parameters(), before.parameters(), strict=True):
        assert torch.allclose(mean, old + 0.5, atol=1e-5), name
    reference = copy.deepcopy(before)
    reference.load_state_dict(ema.module.state_dict(), strict=True)
    assert torch.equal(ema.module(images()), reference(images()))
    blurs = [module for module in ema.module.modules() if isinstance(module, BlurPool)]
    assert blurs
    assert all(blur.kernel.sum().item() == pytest.approx(1) for blur in blurs)


def test_gradient_checkpointing() -> None:
    model = converted(resnet()).train()
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing()
    for each in (plain, model):
        each(images(4)).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert scale_error(one.grad, other.grad) <= 1e-4, name


def test_the_table_of_tools_names_tests_that_exist() -> None:
    rows = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "tools.md").read_text())
    assert len(rows) >= 15
    for file, test in rows:
        assert f"def {test}(" in (ROOT / file).read_text(), (file, test)
