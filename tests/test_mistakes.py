"""Mistakes: each is one clear line that says what to do, and the model stays as it was."""

import functools
import gc
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import aliasfix
from aliasfix import AliasfixError, Recipe

from . import drawing
from .drawing import scale_error
from .nets import Lambda, Net


@pytest.fixture
def model() -> nn.Module:
    return Net().eval()


images = functools.partial(drawing.images, size=(32, 36))


def state(model: nn.Module) -> list[Any]:
    """Everything that a model holds, down to the values of its tensors; two of them can be compared."""
    found: list[Any] = []
    for path, module in model.named_modules():
        attributes = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers", "_modules")}
        found.append((path, type(module), id(module), list(module._modules), repr(attributes)))
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            value = None if tensor is None else (id(tensor), tensor.tolist())
            found.append((name, value))
    return found


def refuses(message: str, model: nn.Module, call: Callable[[], Any]) -> None:
    """``call`` is a mistake with a ``message`` of one line, and leaves the model alone."""
    before = state(model)
    with pytest.raises(AliasfixError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert state(model) == before


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [aliasfix.convert, aliasfix.inspect], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter": "tri4"}, r"unknown filter 'tri4'.*tri3"),
        ({"filter": [1, -1]}, "sum"),
        ({"filter": []}, "sum"),
        ({"filter": None}, "tri3"),
        ({"padding": "mirror"}, r"padding='mirror'.*reflect"),
        ({"stem": "none"}, r"stem='none'.*paper"),
        ({"average": "drop"}, r"average='drop'.*replace"),
        ({"include": "layer9.*"}, r"'layer9\.\*' matches no module.*block"),
        ({"exclude": ["pool", "layer9"]}, "'layer9' matches no module"),
        ({"include": [3]}, "globs"),
        ({"recipe": Recipe("bin5"), "filter": "bin4"}, "recipe= holds all options"),
        ({"recipe": Recipe("bin5"), "include": "pool"}, "recipe= holds all options"),
    ],
    ids=str,
)
def test_options(model: nn.Module, use: Callable[..., Any], options: dict[str, Any], message: str) -> None:
    refuses(message, model, lambda: use(model, **options))


@pytest.mark.parametrize("inplace", [False, True])
def test_another_recipe_on_a_converted_model_names_revert(model: nn.Module, inplace: bool) -> None:
    aliasfix.convert(model, inplace=True)
    refuses(r"tri3.*revert", model, lambda: aliasfix.convert(model, "bin5", inplace=inplace))


@pytest.mark.parametrize("include", ["block", lambda module, path: "block" in path], ids=["glob", "predicate"])
def test_the_same_recipe_twice_is_once(model: nn.Module, include: Any) -> None:
    once = aliasfix.convert(model, include=include)
    before = state(once)
    assert aliasfix.convert(once, include=include, inplace=True) is once
    assert state(once) == before


def test_revert_of_a_model_that_was_not_converted(model: nn.Module) -> None:
    refuses("not a converted one", model, lambda: aliasfix.revert(model))
    refuses("not a converted one", model, lambda: aliasfix.revert(model, inplace=True))


def test_revert_after_a_part_was_replaced(model: nn.Module) -> None:
    aliasfix.convert(model, inplace=True)
    model.block = nn.Identity()
    refuses("block", model, lambda: aliasfix.revert(model, inplace=True))


# -- inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (images(channels=4, size=(32, 32)), r"\(2, 4, 32, 32\).*expected input"),
        (images(size=(4, 4)), r"\(2, 3, 4, 4\)"),
        (torch.ones(7), r"\(7,\)"),
        ((images(), images()), r"\(2, 3, 32, 36\), \(2, 3, 32, 36\).*argument"),
        ({"image": images()}, "image.*argument"),
        (np.zeros((2, 3, 32, 36), dtype="float32"), "example input"),
        ("an image", "an image"),
    ],
    ids=["channels", "too small", "dimensions", "two arguments", "wrong name", "array", "string"],
)
def test_example_input(model: nn.Module, example: Any, message: str) -> None:
    refuses(message, model, lambda: aliasfix.convert(model, example_input=example))
    refuses(message, model, lambda: aliasfix.inspect(model, example_input=example))


def test_a_guessed_input_is_named(model: nn.Module) -> None:
    model.fc = nn.Linear(9, 10)
    refuses(r"guessed input \(2, 3, 224, 224\).*example_input=", model, lambda: aliasfix.convert(model))


# -- what is no plain model ----------------------------------------------------------------------------------


def _compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def _compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def _scripted(model: nn.Module) -> nn.Module:
    return torch.jit.script(nn.Sequential(model.stem, model.pool))


def _jit_traced(model: nn.Module) -> nn.Module:
    return torch.jit.trace(model, (images(),))


def _fx_traced(model: nn.Module) -> nn.Module:
    return fx.symbolic_trace(model)


def _exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model, (images(),), strict=False).module()


def _data_parallel(model: nn.Module) -> nn.Module:
    return nn.DataParallel(model)


def _offloaded(model: nn.Module, folder: Path) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    return accelerate.disk_offload(model, folder, execution_device=torch.device("cpu"))


def _offloaded_in_part(model: nn.Module, folder: Path) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    places = {name: "disk" if name == "block" else "cpu" for name, _ in model.named_children()}
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


@pytest.mark.parametrize("offload", [_offloaded, _offloaded_in_part], ids=lambda f: f.__name__.strip("_"))
def test_offloaded(model: nn.Module, tmp_path: Path, offload: Callable[[nn.Module, Path], nn.Module]) -> None:
    """It is refused, and what the message says helps."""
    expected = aliasfix.convert(model)(images())
    model = offload(model, tmp_path)
    for use in (aliasfix.convert, aliasfix.inspect):
        with pytest.raises(AliasfixError, match=r"offloaded by accelerate.*remove_hook_from_submodules") as caught:
            use(model)
        assert "\n" not in str(caught.value)
    from accelerate.hooks import remove_hook_from_submodules

    remove_hook_from_submodules(model)
    assert scale_error(expected, aliasfix.convert(model)(images())) <= 1e-6


def test_dispatched_but_not_offloaded(model: nn.Module) -> None:
    accelerate = pytest.importorskip("accelerate")
    expected = aliasfix.convert(model)(images())
    model = accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
    assert scale_error(expected, aliasfix.convert(model)(images())) <= 1e-6


WRAPPINGS = {
    _compiled: "compiled.*_orig_mod",
    _compiled_in_place: "compiled",
    _scripted: "scripted",
    _jit_traced: "scripted",
    _fx_traced: "FX graph",
    _exported: "FX graph",
    _data_parallel: r"DataParallel.*model\.module",
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("wrap", WRAPPINGS, ids=lambda f: f.__name__.strip("_"))
def test_wrapped(model: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> None:
    wrapped = wrap(model)
    refuses(WRAPPINGS[wrap], model, lambda: aliasfix.convert(wrapped, example_input=images()))
    refuses(WRAPPINGS[wrap], model, lambda: aliasfix.inspect(wrapped, example_input=images()))
    refuses(WRAPPINGS[wrap], model, lambda: aliasfix.convert(wrapped, example_input=images(), inplace=True))


@pytest.mark.parametrize("wrap", [_compiled, _data_parallel], ids=lambda f: f.__name__.strip("_"))
def test_wrapped_after_a_conversion(model: nn.Module, wrap: Callable[[nn.Module], nn.Module]) -> None:
    wrapped = wrap(aliasfix.convert(model))
    refuses(WRAPPINGS[wrap], wrapped, lambda: aliasfix.revert(wrapped))


def _with_a_compiled_part(model: nn.Module) -> None:
    model.block = torch.compile(model.block, backend="eager")


def _with_a_part_compiled_in_place(model: nn.Module) -> None:
    model.block.compile(backend="eager")


def _with_a_scripted_part(model: nn.Module) -> None:
    model.block = torch.jit.script(model.block)


PARTS = {
    _with_a_compiled_part: "block.*compiled",
    _with_a_part_compiled_in_place: "block.*compiled",
    _with_a_scripted_part: "block.*scripted",
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("change", PARTS, ids=lambda f: f.__name__.strip("_"))
def test_a_part_that_python_does_not_run(model: nn.Module, change: Callable[[nn.Module], None]) -> None:
    change(model)
    with pytest.raises(AliasfixError, match=PARTS[change]):
        aliasfix.convert(model, example_input=images(), inplace=True)
    assert not any("aliasfix" in path for path, _ in model.named_modules())


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    if not torch.distributed.is_available():
        pytest.skip("torch is built without distributed")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed(model: nn.Module) -> None:
    wrapped = nn.parallel.DistributedDataParallel(model)
    refuses(r"DistributedDataParallel.*model\.module", model, lambda: aliasfix.convert(wrapped))
    converted = nn.parallel.DistributedDataParallel(aliasfix.convert(model))
    converted(images()).sum().backward()
    assert torch.equal(converted(images()), converted.module(images()))


@pytest.mark.parametrize("thing", [Net, "resnet50", {"weight": 1}, None], ids=["class", "name", "dict", "none"])
def test_no_model(thing: Any) -> None:
    with pytest.raises(AliasfixError, match=r"takes a torch\.nn\.Module"):
        aliasfix.convert(thing)


# -- never half changed --------------------------------------------------------------------------------------


class Sealed(nn.MaxPool2d):
    """Takes no children."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        raise RuntimeError("sealed: no children here")


class Hookless(nn.LPPool2d):
    """Takes no hook of aliasfix once it has children."""

    def register_forward_hook(self, hook: Any, **options: Any) -> Any:
        if self._modules:
            raise RuntimeError("sealed: no hooks here")
        return super().register_forward_hook(hook, **options)


@pytest.mark.parametrize("last", [Sealed(2), Hookless(2, 2)], ids=["child", "hook"])
def test_a_surgery_that_fails_changes_nothing(model: nn.Module, last: nn.Module) -> None:
    whole = nn.Sequential(model.stem, nn.MaxPool2d(2), model.block, Lambda(lambda _, x: F.avg_pool2d(x, 2)), last)
    expected = whole(images())
    before = state(whole)
    for inplace in (False, True):
        with pytest.raises(RuntimeError, match="sealed"):
            aliasfix.convert(whole, inplace=inplace)
        assert state(whole) == before
        assert aliasfix.report(whole) is None
    assert torch.equal(whole(images()), expected)


def test_a_model_that_cannot_be_copied(model: nn.Module) -> None:
    model.open = (number for number in range(3))
    refuses("inplace=True", model, lambda: aliasfix.convert(model))
    assert aliasfix.convert(model, inplace=True) is model


# -- tracing leaves no trace ---------------------------------------------------------------------------------


class Busy(nn.Module):
    """A forward that changes buffers and attributes, draws random numbers, and may fail at the end."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4).eval()
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("count", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("last", None)
        self.seen = 0
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.dropout(self.spectral(self.frozen(self.norm(self.conv(x)))), 0.5), 2)
        self.mean.mul_(0.9).add_(0.1 * x.mean((0, 2, 3)))
        self.mean[0] = 1
        self.mean.data.add_(1)
        self.count += 1
        self.last = x
        self.seen += 1
        self.cache = x
        noise = torch.rand(4) + torch.randn(4) + random.random() + np.random.rand()
        x = x + noise[None, :, None, None]
        if self.end == "asks for a value":
            x = x * float(x.mean().item() > 0)
        if self.end == "fails":
            raise ValueError("this always fails")
        if self.end == "fails on a value":
            raise ValueError(f"this always fails {x.mean().item()}")
        return x


def _random_states() -> list[Any]:
    name, keys, *rest = np.random.get_state()
    return [random.getstate(), torch.random.get_rng_state().tolist(), name, keys.tolist(), rest]


@pytest.mark.parametrize("end", ["works", "asks for a value", "fails", "fails on a value"])
def test_tracing_leaves_everything_as_it_was(end: str) -> None:
    model = Busy(end)
    model.norm.register_forward_hook(lambda *_: None)
    model.register_forward_pre_hook(lambda *_: None)
    before, numbers = state(model), _random_states()
    assert [module.training for module in (model, model.norm, model.frozen)] == [True, True, False]
    if end.startswith("fails"):
        refuses("this always fails", model, lambda: aliasfix.inspect(model, example_input=images()))
    else:
        plan = aliasfix.inspect(model, example_input=images())
        assert len(plan.converted) == 1
    assert state(model) == before
    assert _random_states() == numbers
    assert torch.is_grad_enabled()
    assert gc.isenabled()
    assert images().device.type == "cpu"
    assert torch.zeros(1).device.type == "cpu"


def test_a_conversion_of_a_copy_leaves_the_original() -> None:
    model = Busy("works")
    before, numbers = state(model), _random_states()
    converted = aliasfix.convert(model, example_input=images())
    assert state(model) == before
    assert _random_states() == numbers
    converted.eval()(images())
    assert state(model) == before


@torch.no_grad()
def test_lazy_layers_are_refused_or_work() -> None:
    """A layer without its shape yet becomes another class as soon as it runs."""
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.MaxPool2d(2))
    with pytest.raises(AliasfixError, match=r"[Ll]azy|uninitialized"):
        aliasfix.convert(model, example_input=images())
    assert type(model[0]) is nn.LazyConv2d
    assert model(images()).shape == (2, 4, 15, 17)
    assert scale_error(model(images()), aliasfix.convert(model, "delta1", example_input=images())(images())) <= 1e-5
