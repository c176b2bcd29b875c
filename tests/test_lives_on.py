"""A converted model lives on as the original would: methods, training, copies, files, types, compilers."""

import copy
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

import aliasfix
from aliasfix.layers.blur import BlurPool

from . import drawing
from .drawing import draw, scale_error
from .nets import Lambda, Net, tri3

MODELS = ("net", "resnet18", "mobilenetv3_small_050")


images = functools.partial(drawing.images, size=(64, 70))  # odd once it is halved


@pytest.fixture(scope="module", params=MODELS)
def converted(request: pytest.FixtureRequest) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net() if request.param == "net" else timm.create_model(request.param, pretrained=False)
    draw(model, images(4))
    return {"original": model} | {name: aliasfix.convert(model, name) for name in ("delta1", "tri3")}


#: For what takes seconds a model.
few = pytest.mark.parametrize("converted", ["net", "resnet18"], indirect=True)


@pytest.fixture
def original(converted: dict[str, nn.Module]) -> nn.Module:
    return copy.deepcopy(converted["original"])


@pytest.fixture
def exact(converted: dict[str, nn.Module]) -> nn.Module:
    """The model converted with ``delta1``."""
    return copy.deepcopy(converted["delta1"])


@pytest.fixture
def model(converted: dict[str, nn.Module]) -> nn.Module:
    """The model converted with ``tri3``."""
    return copy.deepcopy(converted["tri3"])


def blurs(model: nn.Module) -> list[BlurPool]:
    found = [module for module in model.modules() if isinstance(module, BlurPool)]
    assert found
    return found


# -- methods -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_forward_features_takes_the_blur_along(original: nn.Module, exact: nn.Module, model: nn.Module) -> None:
    before = original.forward_features(images())
    assert scale_error(before, exact.forward_features(images())) <= 1e-5
    assert scale_error(before, model.forward_features(images())) > 1e-3


@torch.no_grad()
def test_classifier_methods_stay(original: nn.Module, model: nn.Module) -> None:
    features = model.forward_features(images())
    assert type(model.get_classifier()) is type(original.get_classifier())
    assert model.get_classifier() is not original.get_classifier()
    model.reset_classifier(7)
    assert model(images()).shape == (2, 7)
    assert torch.equal(model.forward_features(images()), features)


# -- training ------------------------------------------------------------------------------------------------


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """One training step; the parameters that got a gradient other than zero."""
    model.train()
    optimizer.zero_grad()
    model(images(4)).square().mean().backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_trains_a_step_under_adamw(original: nn.Module, model: nn.Module) -> None:
    start = copy.deepcopy(model.state_dict())
    had = step(original, torch.optim.AdamW(original.parameters()))
    has = step(model, torch.optim.AdamW(model.parameters()))
    assert had
    assert had <= has
    for name in has:
        assert not torch.equal(model.get_parameter(name), start[name])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


def test_in_place_it_is_the_same_object_and_the_optimizer_goes_on(original: nn.Module) -> None:
    optimizer = torch.optim.SGD(original.parameters(), lr=0.1)
    parameters = [(id(p), p.data_ptr()) for p in original.parameters()]
    buffers = [(id(b), b.data_ptr()) for b in original.buffers()]
    model = aliasfix.convert(original, inplace=True)
    assert model is original
    assert [(id(p), p.data_ptr()) for p in model.parameters()] == parameters
    kernels = {id(blur.kernel) for blur in blurs(model)}
    assert [(id(b), b.data_ptr()) for b in model.buffers() if id(b) not in kernels] == buffers
    weight = model.get_classifier().weight.clone()
    step(model, optimizer)
    assert not torch.equal(model.get_classifier().weight, weight)


@torch.no_grad()
def test_train_and_eval_alternate(model: nn.Module) -> None:
    assert not model.training
    assert not any(module.training for module in model.modules())
    before = model(images())
    model.train()
    assert all(module.training for module in model.modules())
    assert torch.equal(model.eval()(images()), before)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x)
        inner = net.inner if not net.saves else lambda y: checkpoint(net.inner, y, use_reentrant=False)
        return inner(x).mean()

    pool = Lambda(lambda self, y: F.max_pool2d(self.conv(y), 2), conv=nn.Conv2d(4, 4, 3))
    model = aliasfix.convert(_with(Lambda(forward, first=nn.Conv2d(3, 4, 3), inner=pool), saves=False))
    gradients = []
    for model.saves in (False, True):
        model.zero_grad()
        model(images()).backward()
        gradients.append(model.first.weight.grad.clone())
    assert torch.equal(*gradients)


def _with(model: nn.Module, **attributes: object) -> nn.Module:
    vars(model).update(attributes)
    return model


# -- copies and files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_deepcopy_uses_its_own_weights(model: nn.Module) -> None:
    before, twin = model(images()), copy.deepcopy(model)
    assert torch.equal(twin(images()), before)
    next(twin.parameters()).mul_(0.5)
    assert scale_error(before, twin(images())) > 1e-3
    assert torch.equal(model(images()), before)


@torch.no_grad()
def test_deepcopy_uses_its_own_blurs(model: nn.Module) -> None:
    before, twin = model(images()), copy.deepcopy(model)
    for blur in blurs(twin):
        kernel = blur.kernel.clone()
        blur.kernel.mul_(0.5)
        assert not torch.equal(twin(images()), before)
        assert torch.equal(model(images()), before)
        blur.kernel.copy_(kernel)
    assert torch.equal(twin(images()), before)


_IN_A_NEW_PROCESS = """
import sys, torch
from torch.utils.hooks import RemovableHandle
torch.set_num_threads(1)
file, path, kind, last = sys.argv[1:]
model, x, expected = torch.load(file, weights_only=False)
module, calls = model.get_submodule(path), []
while not calls or RemovableHandle.next_id <= int(last):  # take every id that the blur's hook may have
    getattr(module, f"register_{kind}_hook")(lambda *_: calls.append(1) and None)
    calls.append(0)
with torch.no_grad():
    assert torch.equal(model(x), expected), "the output differs"
assert 1 in calls
model.train()(x).sum().backward()
"""


@pytest.mark.parametrize(
    ("converted", "kind"),
    [
        ("resnet18", "forward"),
        pytest.param("resnet18", "forward_pre", marks=pytest.mark.slow),
    ],
    indirect=["converted"],
)
@torch.no_grad()
def test_pickles_into_a_new_process_with_foreign_hooks(model: nn.Module, kind: str, tmp_path: Path) -> None:
    last = RemovableHandle.next_id
    hosts = [path.rpartition(".")[0] for path, module in model.named_modules() if isinstance(module, BlurPool)]
    path = next(path for path in hosts if getattr(model.get_submodule(path), f"_{kind}_hooks"))
    file = tmp_path / "model.pt"
    torch.save((model, images(), model(images())), file)
    command = [sys.executable, "-c", _IN_A_NEW_PROCESS, str(file), path, kind, str(last)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


# -- types and layouts ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_types(original: nn.Module, exact: nn.Module, model: nn.Module, dtype: torch.dtype) -> None:
    expected = model(images()).to(dtype)
    before, x = original.to(dtype)(images(dtype=dtype)), images(dtype=dtype)
    exactly, closely = {torch.float64: (1e-12, 1e-4)}.get(dtype, (5e-2, 1e-1))
    assert scale_error(before, exact.to(dtype)(x)) <= exactly
    assert scale_error(expected, model.to(dtype)(x)) <= closely
    assert scale_error(model(x), aliasfix.convert(original)(x)) <= exactly


@torch.no_grad()
def test_channels_last_stays(original: nn.Module, model: nn.Module) -> None:
    expected = model.forward_features(images())
    x = images().to(memory_format=torch.channels_last)
    for each in (original, model):
        each.to(memory_format=torch.channels_last)
        assert each.forward_features(x).is_contiguous(memory_format=torch.channels_last)
    assert scale_error(expected, model.forward_features(x)) <= 1e-5


def test_autocast(original: nn.Module, exact: nn.Module, model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            assert scale_error(original(images()), exact(images())) <= 5e-2
        model.train()(images()).float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@torch.no_grad()
def test_autocast_leaves_the_type_of_a_pooled_map() -> None:
    pool = nn.MaxPool2d(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert scale_error(pool(images()), aliasfix.convert(pool, "delta1")(images())) == 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8], ids=str)
def test_a_pooled_mask_of_integers_keeps_its_constant(dtype: torch.dtype) -> None:
    model = Lambda(lambda net, x: (F.max_pool2d(x, 2), F.max_pool2d((x > 0).to(dtype), 2)))
    x = torch.full((1, 2, 8, 8), 3.0)
    assert scale_error(model(x), aliasfix.convert(model, example_input=x)(x)) <= 1e-6


# -- compilers -----------------------------------------------------------------------------------------------


@few
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_in_one_graph(model: nn.Module, backend: str) -> None:
    x = images().requires_grad_()
    expected = model(x)
    (gradient,) = torch.autograd.grad(expected.square().mean(), x)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)(x)
    assert scale_error(expected, compiled) <= 1e-4
    assert scale_error(gradient, torch.autograd.grad(compiled.square().mean(), x)[0]) <= 1e-3


@torch.no_grad()
def test_exports(model: nn.Module) -> None:
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},), strict=False)
    assert scale_error(model(images(3)), program.module()(images(3))) <= 1e-5


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_traces(model: nn.Module) -> None:
    traced = torch.jit.trace(model, (images(),))
    assert scale_error(model(images(3)), traced(images(3))) <= 1e-5


@torch.no_grad()
def test_functional_call_uses_the_weights_given(model: nn.Module) -> None:
    halves = {name: p * 0.5 for name, p in model.named_parameters()}
    before = model(images())
    halved = torch.func.functional_call(model, halves, (images(),))
    assert scale_error(before, halved) > 1e-3
    model.load_state_dict(halves, strict=False)
    assert torch.equal(model(images()), halved)


# -- how models are written ----------------------------------------------------------------------------------


def _shared_activation() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.pool(net.act(net.first(x)))
        return net.act(net.last(net.act(net.middle(x))))

    def expected(net: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(net.first(x))
        x = tri3(F.max_pool2d(x, 3, 1, 1))
        x = tri3(F.relu(F.conv2d(x, net.middle.weight, net.middle.bias, padding=1)))
        return tri3(F.relu(F.conv2d(x, net.last.weight, net.last.bias, padding=1)))

    layers = {
        "first": nn.Conv2d(3, 4, 3, 1, 1),
        "middle": nn.Conv2d(4, 6, 3, 2, 1),
        "last": nn.Conv2d(6, 4, 3, 2, 1),
    }
    return Lambda(forward, **layers, act=nn.ReLU(inplace=True), pool=nn.MaxPool2d(3, 2, 1)), expected


def _shared_pool() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    def expected(net: nn.Module, x: Tensor) -> Tensor:
        for _ in range(3):
            x = tri3(F.max_pool2d(x, 3, 1, 1))
        return x

    return Lambda(lambda net, x: net.pool(net.pool(net.pool(x))), pool=nn.MaxPool2d(3, 2, 1)), expected


def _functional_of_the_root() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = F.max_pool2d(net.first(x), 3, 1, 1)
        x = F.max_pool2d(input=x, kernel_size=3, stride=2, padding=1)
        return F.avg_pool2d(x, 2)

    def expected(net: nn.Module, x: Tensor) -> Tensor:
        x = F.max_pool2d(net.first(x), 3, 1, 1)
        return tri3(F.avg_pool2d(tri3(F.max_pool2d(x, 3, 1, 1)), 2, 1))

    return Lambda(forward, first=nn.Conv2d(3, 4, 3)), expected


def _functional_of_a_child() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    child, expected = _functional_of_the_root()
    model = nn.Sequential(nn.Identity(), child)
    return model, lambda net, x: expected(net[1], x)


def _child_called_twice() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    child = Lambda(lambda net, x: F.max_pool2d(x, 3, 2, 1))

    def expected(net: nn.Module, x: Tensor) -> Tensor:
        x = tri3(F.max_pool2d(x, 3, 1, 1))
        return tri3(F.max_pool2d(torch.sin(x), 3, 1, 1))

    return Lambda(lambda net, x: net.child(torch.sin(net.child(x))), child=child), expected


def _tied_weights() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    first, last = nn.Conv2d(3, 3, 3, 1, 1), nn.Conv2d(3, 3, 3, 2, 1)
    last.weight = first.weight

    def expected(net: nn.Module, x: Tensor) -> Tensor:
        assert net[0].weight is net[3].weight
        x = tri3(F.max_pool2d(net[0](x), 3, 1, 1))
        return tri3(F.relu(F.conv2d(F.relu(x), net[0].weight, net[3].bias, padding=1)))

    return nn.Sequential(first, nn.MaxPool2d(3, 2, 1), nn.ReLU(), last, nn.ReLU()), expected


def _one_module_under_two_names() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    conv = nn.Conv2d(3, 3, 3, 2, 1)

    def expected(net: nn.Module, x: Tensor) -> Tensor:
        x = tri3(F.max_pool2d(x, 3, 1, 1))
        for _ in range(2):
            x = tri3(F.relu(F.conv2d(x, net[1].weight, net[1].bias, padding=1)))
        return x

    return nn.Sequential(nn.MaxPool2d(3, 2, 1), conv, nn.ReLU(), conv, nn.ReLU()), expected


class _Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.first(x), 3, 2, 1)


class _Derived(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def _forward_of_the_base_class() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    return _Derived(), lambda net, x: tri3(F.max_pool2d(net.first(x), 3, 1, 1)) * 2


WRITTEN = {
    function.__name__.strip("_"): function
    for function in (
        *(
            _shared_activation,
            _shared_pool,
            _functional_of_the_root,
            _functional_of_a_child,
            _child_called_twice,
        ),
        *(_tied_weights, _one_module_under_two_names, _forward_of_the_base_class),
    )
}


@torch.no_grad()
@pytest.mark.parametrize("written", WRITTEN)
def test_however_it_is_written(written: str) -> None:
    model, expected = WRITTEN[written]()
    draw(model)
    keys = list(model.state_dict())
    assert scale_error(model(images()), aliasfix.convert(model, "delta1")(images())) <= 1e-5
    converted = aliasfix.convert(model, "tri3")
    assert aliasfix.report(converted).kept == ()
    assert scale_error(expected(model, images()), converted(images())) <= 1e-5
    assert list(converted.state_dict()) == keys


def _discards_a_functional(net: nn.Module, x: Tensor) -> Tensor:
    x = net.conv(net.pool(x))
    F.relu_(x)
    return net.last(x)


def _discards_a_module(net: nn.Module, x: Tensor) -> Tensor:
    x = net.conv(net.pool(x))
    net.act(x)
    return net.last(x)


def _uses_both(net: nn.Module, x: Tensor) -> Tensor:
    before = net.conv(net.pool(x))
    after = net.act(before)
    return net.last(before + 2 * after)


def _adds_in_place(net: nn.Module, x: Tensor) -> Tensor:
    x = net.pool(x)
    y = net.conv(x)
    y += 1
    y.mul_(2)
    return net.last(net.act(y))


def _writes_into_a_slice(net: nn.Module, x: Tensor) -> Tensor:
    y = net.conv(net.pool(x))
    y[:, :2] = y[:, :2].relu()
    return net.last(y)


IN_PLACE = (_discards_a_functional, _discards_a_module, _uses_both, _adds_in_place, _writes_into_a_slice)


@torch.no_grad()
@pytest.mark.parametrize("forward", IN_PLACE, ids=lambda f: f.__name__.strip("_"))
def test_in_place_operations(forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
    layers = {"pool": nn.MaxPool2d(2), "conv": nn.Conv2d(3, 4, 3, 2, 1), "last": nn.Conv2d(4, 4, 3)}
    model = draw(Lambda(forward, **layers, act=nn.ReLU(inplace=True)))
    expected = model(images())
    assert scale_error(expected, aliasfix.convert(model, "delta1")(images())) <= 1e-5
    assert aliasfix.convert(model, "tri3")(images()).shape == expected.shape
    assert torch.equal(model(images()), expected)


def _counts_on_in_training(net: nn.Module, x: Tensor) -> Tensor:
    """The n-th call of a function in training is another one than in evaluation."""
    x = net.first(x)
    extra = F.max_pool2d(x, 5, 3).mean() if net.training else 0
    return net.last(F.max_pool2d(x, 2)) + extra


def _returns_more_in_training(net: nn.Module, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    x = net.first(x)
    pooled = F.max_pool2d(x, 2)
    return (pooled, x) if net.training else pooled


def _skips_a_shared_layer_in_training(net: nn.Module, x: Tensor) -> Tensor:
    x = net.pool(net.first(x))
    return net.last(x) if net.training else net.last(net.pool(x))


BRANCHES = (_counts_on_in_training, _returns_more_in_training, _skips_a_shared_layer_in_training)


@torch.no_grad()
@pytest.mark.parametrize("forward", BRANCHES, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_training_may_take_another_way(forward: Callable[..., Tensor], training: bool) -> None:
    layers = {"first": nn.Conv2d(3, 4, 3), "pool": nn.MaxPool2d(3, 2), "last": nn.Conv2d(4, 4, 3)}
    model = draw(Lambda(forward, **layers))
    expected = model.train(training)(images())
    exact, blurred = (aliasfix.convert(model, name).train(training) for name in ("delta1", "tri3"))
    assert scale_error(expected, exact(images())) <= 1e-5
    assert scale_error(expected, blurred(images())) > 1e-3


def test_an_error_in_a_forward_leaves_nothing_behind() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise ValueError("three channels, please")
        return F.max_pool2d(x, 3, 2, 1)

    model = aliasfix.convert(Lambda(forward))
    with pytest.raises(ValueError, match="three channels"):
        model(torch.ones(1, 4, 8, 8))
    x = images()
    assert torch.equal(F.max_pool2d(x, 3, 2, 1), nn.MaxPool2d(3, 2, 1)(x))
    assert F.max_pool2d(x, 3, 2, 1).shape == (2, 3, 32, 35)
    assert scale_error(tri3(F.max_pool2d(x, 3, 1, 1)), model(x)) <= 1e-6


def test_a_model_converted_on_the_meta_device_gets_its_kernels_when_it_gets_memory():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)).eval()
    with torch.device("meta"):
        late = aliasfix.convert(copy.deepcopy(net).to("meta"), "bin5", example_input=torch.rand(1, 3, 16, 16))
    late = late.to_empty(device="cpu")
    late.load_state_dict(net.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(late(x), aliasfix.convert(net, "bin5", example_input=x)(x))
