"""What is computed in another way where that is cheaper equals what it stands for, in value and in gradient."""

import itertools
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import aliasfix
from aliasfix.layers.averages import fuses
from aliasfix.layers.blur import BlurPool
from aliasfix.layers.convolution import Blur
from aliasfix.layers.dense_max import dense_max
from aliasfix.layers.functional import blur_of
from aliasfix.layers.padding import pad
from aliasfix.planning.rule import by_name

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


SEVERAL_PARTS = (3, 4, 301, 306)
"""The shape of a batch that is too large to be taken at once; each image of it is not."""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one image at a time, however small: for checks that are too slow on a million values."""
    for module in ("batches", "convolution"):
        monkeypatch.setattr(f"aliasfix.layers.{module}.PART", 1)


# -- the dense maximum ---------------------------------------------------------------------------------------

POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@pytest.mark.parametrize("axes", POOL)
@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(2, 0, 1), (3, 1, 1), (5, 2, 1), (7, 3, 1), (3, 1, 2)])
@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_dense_max_is_max_pooling_at_stride_1(
    axes: int, kernel: int, padding: int, dilation: int, special: float
) -> None:
    x = draw(2, 3, *(13 + axis for axis in range(axes)))
    x.view(-1)[::17] = special
    found = dense_max(x, (kernel,) * axes, [(padding, padding)] * axes, (dilation,) * axes)
    expected = POOL[axes](x, kernel, 1, padding, dilation)
    assert torch.equal(found.nan_to_num(nan=99), expected.nan_to_num(nan=99))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 2, ceil_mode=True)], ids=str)
def test_a_pool_without_gradients_returns_what_it_returns_with_them(
    pool: nn.Module, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    model = aliasfix.convert(nn.Sequential(pool), "bin5", example_input=draw(2, 3, 16, 18)).to(dtype)
    x = draw(*SEVERAL_PARTS, dtype=dtype).to(memory_format=layout)
    with torch.no_grad():
        found = model(x)
    followed = model(x.requires_grad_())
    assert found.is_contiguous(memory_format=layout)
    assert found.dtype == dtype
    assert (found - followed).abs().max() <= BOUNDS[dtype] * followed.abs().max()


# -- gradients -----------------------------------------------------------------------------------------------

LAYERS = {
    "blur": BlurPool("bin5", (2, 2)),
    "pool": aliasfix.convert(nn.Sequential(nn.MaxPool2d(3, 2, 1)), example_input=draw(1, 1, 8, 8)),
    "pool of 2": aliasfix.convert(nn.Sequential(nn.MaxPool2d(2)), example_input=draw(1, 1, 8, 8)),
    "average": aliasfix.convert(nn.Sequential(nn.AvgPool2d(3, 2, 1)), example_input=draw(1, 1, 8, 8)),
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_gradients_in_parts(layer: nn.Module) -> None:
    layer = layer.double()
    x = draw(2, 2, 8, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)
    assert torch.autograd.gradcheck(layer, x[0].detach().requires_grad_())
    layer.float()


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_in_parts_are_those_of_the_whole_ties_included(layer: nn.Module, layout: torch.memory_format) -> None:
    """Most values are equal to a neighbour: the maximum of a window is reached more than once."""
    x = draw(*SEVERAL_PARTS).mul(2).round().to(memory_format=layout)

    def loss(x: Tensor) -> Tensor:
        return layer(x).pow(2).sum()

    expected = torch.func.grad(loss)(x)  # a transform is computed in the plain way
    alone = torch.cat([torch.autograd.grad(loss(own), own)[0] for image in x for own in [image[None].requires_grad_()]])
    (together,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    for found in (alone, together):
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_in_training_a_pool_keeps_its_input_alone() -> None:
    x, kept = draw(*SEVERAL_PARTS).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        LAYERS["pool"](x)
    assert kept == [x.data_ptr()]


def test_function_transforms_still_work() -> None:
    x = draw(2, 3, 16, 16)
    for layer in LAYERS.values():
        expected = torch.autograd.grad(layer(own := x.clone().requires_grad_()).sum(), own)[0]
        assert (torch.func.grad(lambda y, layer=layer: layer(y).sum())(x) - expected).abs().max() <= 1e-6
        assert (torch.func.vmap(layer)(x[None])[0] - layer(x)).abs().max() <= 1e-6


# -- the average with its blur -------------------------------------------------------------------------------

AVERAGES = {
    "plain": nn.AvgPool2d(2),
    "padded": nn.AvgPool2d(3, 2, 1),
    "per axis": nn.AvgPool2d((4, 1), (3, 1), (2, 0)),
    "overhanging": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "padding not counted": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "own divisor": nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    "1-D": nn.AvgPool1d(3, 2, 1),
    "3-D": nn.AvgPool3d(2, (2, 2, 1), ceil_mode=True),
}


@pytest.mark.parametrize("pool", AVERAGES.values(), ids=AVERAGES)
@pytest.mark.parametrize("filter", ["delta1", "rect2", "tri3", "bin4", "bin5", "rect3"])
@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "circular"])
def test_an_average_with_its_blur_is_the_two_steps(pool: nn.Module, filter: str, padding: str) -> None:
    axes = int(type(pool).__name__[-2])
    func = getattr(F, f"avg_pool{axes}d")
    given = {name: value for name, value in vars(pool).items() if name[0] != "_" and name != "training"}
    rule, stride = by_name("average_pool"), (pool.stride,) * axes if isinstance(pool.stride, int) else pool.stride
    blur = BlurPool(filter, stride[-axes:], padding=padding).double()
    for size in ((9, 12, 7), (13, 8, 6), (4, 3, 5)):
        x = draw(2, 3, *size[:axes], dtype=torch.float64).requires_grad_()
        assert fuses(x, axes)
        found = rule.blurred(func.__name__, func, {**given, "input": x}, blur)
        expected = blur(rule.dense(func.__name__, func, {**given, "input": x}, (1,) * axes, padding == "circular"))
        bound = 1e-7 if filter == "rect3" else 1e-13  # the kernel holds thirds in float32
        assert (found - expected).abs().max() <= bound
        weights = draw(*expected.shape, dtype=torch.float64)
        gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (found, expected)]
        assert (gradients[0] - gradients[1]).abs().max() <= bound


def test_an_average_with_its_blur_keeps_nothing_and_makes_no_dense_map() -> None:
    x, kept = draw(2, 3, 16, 16).requires_grad_(), []
    LAYERS["average"](x)  # its matrices are made
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        torch.profiler.profile() as profile,
    ):
        LAYERS["average"](x)
    called = {event.key for event in profile.key_averages()}
    assert kept == []
    assert "aten::bmm" in called
    assert not called & {"aten::avg_pool2d", "aten::convolution"}
    assert [step.form for step in aliasfix.report(LAYERS["average"])] == ["fused"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_16_bits_an_average_with_its_blur_is_rounded_once(dtype: torch.dtype) -> None:
    """Large values, whose sum is no number of 16 bits: they are no reason to take the two steps."""
    model, x = LAYERS["average"], (draw(2, 3, 16, 18) * 1000 + 3000).to(dtype)
    wide = x.float().requires_grad_()
    exact, x = model(wide), x.requires_grad_()
    found = model(x)
    assert torch.equal(found, exact.to(dtype))
    weights = draw(*found.shape).to(dtype)
    (gradient,) = torch.autograd.grad(found, x, weights)
    (expected,) = torch.autograd.grad(exact, wide, weights.float())
    assert torch.equal(gradient, expected.to(dtype))


def test_autocast_does_not_lower_an_average_with_its_blur() -> None:
    model, x = LAYERS["average"], draw(2, 3, 16, 18).requires_grad_()
    out = model(x)
    (expected,) = torch.autograd.grad(out.pow(2).sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
        (gradient,) = torch.autograd.grad(found.pow(2).sum(), x)
    assert torch.equal(found, out)
    assert torch.equal(gradient, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, for forward mode
def test_infinite_values_and_gradients_stay_where_they_are() -> None:
    model, x = LAYERS["average"], draw(1, 1, 16, 16)
    x[..., 8, 8] = torch.inf
    out = model(x.requires_grad_())
    assert 1 <= out.isinf().sum() <= 9
    assert not out.isnan().any()
    weights = torch.zeros_like(out)
    weights[..., 4, 4] = torch.inf
    weights.requires_grad_()
    for graph in (False, True):
        (gradient,) = torch.autograd.grad(out, x, weights, create_graph=graph, retain_graph=True)
        assert gradient.requires_grad == graph
        assert gradient[..., 8, 8].isinf()
        assert gradient[..., :, :2].isfinite().all()
    tangent = torch.zeros(1, 1, 16, 16)
    tangent[..., 8, 8] = torch.nan
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(model(forward_ad.make_dual(draw(1, 1, 16, 16), tangent)))
    assert 1 <= out.tangent.isnan().sum() <= 9


def average(filter: str = "tri3") -> tuple[nn.Module, BlurPool]:
    model = aliasfix.convert(nn.Sequential(nn.AvgPool2d(2)), filter, example_input=draw(1, 1, 8, 8))
    return model, next(module for module in model.modules() if isinstance(module, BlurPool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_kernel_that_is_no_product_is_taken_as_it_is(dtype: torch.dtype) -> None:
    model, blur = average("bin7")
    x, places = draw(1, 2, 16, 16, dtype=dtype), torch.arange(-3.0, 4)
    disk = (places[:, None].square() + places.square() <= 10).float()
    blur.kernel = disk / disk.sum()
    model.to(dtype)
    assert (model(x) - blur(F.avg_pool2d(x, 2, 1))).abs().max() <= 2 * BOUNDS[dtype]
    assert (model(x) - average("bin7")[0].to(dtype)(x)).abs().max() > 0.1


@pytest.mark.parametrize("filter", ["rect3", "rect7", "window6", "lsq7"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_rounded_kernel_has_the_gain_that_it_has(filter: str, dtype: torch.dtype) -> None:
    model, blur = average(filter)
    x = draw(1, 2, 16, 16) + 4
    blur.to(dtype)
    assert torch.allclose(model(x), blur(F.avg_pool2d(x, 2, 1)), rtol=1e-3)


def test_whoever_replaces_or_listens_to_the_blur_is_heard() -> None:
    model, blur = average()
    called: list[Tensor] = []
    handle = blur.register_forward_hook(lambda *given: called.append(given[-1]))
    out = model(draw(1, 1, 8, 8))
    assert [each.shape for each in called] == [out.shape]
    handle.remove()
    model[0].aliasfix_blur = nn.Identity()
    model[0].aliasfix_blur.padding = "reflect"
    assert model(draw(1, 1, 8, 8)).shape == (1, 1, 7, 7)


class Rounding(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out.bfloat16().to(out.dtype) if isinstance(out, Tensor) and out.is_floating_point() else out


class Hearing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.heard += [func.__name__] if func.__name__ in ("avg_pool2d", "blur_pool", "matmul") else []
        return func(*args, **(kwargs or {}))


def test_modes_see_the_two_steps_and_leave_nothing_behind() -> None:
    model, x = average("bin5")[0], draw(1, 1, 26, 22)
    by_name("average_pool").blurred.__globals__["_matrix"].cache_clear()
    with Rounding():
        model(x)
    assert (model(x) - F.avg_pool2d(x, 2, 1)[..., ::2, ::2]).abs().mean() > 0.1
    blurred = average("bin5")[1](F.avg_pool2d(x, 2, 1))
    assert (model(x) - blurred).abs().max() <= 1e-6
    with Hearing() as hearing:
        model(x)
    assert hearing.heard == ["avg_pool2d", "blur_pool"]
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(x).shape == blurred.shape
    assert (make_fx(model)(x)(x) - blurred).abs().max() <= 1e-6


def test_the_input_of_an_average_is_not_held() -> None:
    x = draw(1, 1, 8, 8).requires_grad_() * 2
    seen, out = weakref.ref(x), average()[0](x)
    del x
    assert seen() is None
    out.sum().backward()


# -- the blur ------------------------------------------------------------------------------------------------


def oracle(x: Tensor, blur: BlurPool) -> Tensor:
    """The definition, one output sample after the other, in float64."""
    rows, columns = (kernel_axis(blur, axis) for axis in (0, 1))
    padded = pad(x.double(), [((len(k) - 1) // 2, len(k) // 2) for k in (rows, columns)], blur.padding)
    height, width = (-(-n // s) for n, s in zip(x.shape[-2:], blur.stride, strict=True))
    out = x.new_zeros(*x.shape[:-2], height, width, dtype=torch.float64)
    for i, j in itertools.product(range(height), range(width)):
        top, left = i * blur.stride[0], j * blur.stride[1]
        window = padded[..., top : top + len(rows), left : left + len(columns)]
        out[..., i, j] = (window * rows[:, None] * columns).sum((-2, -1))
    return out


def kernel_axis(blur: BlurPool, axis: int) -> Tensor:
    return torch.tensor(aliasfix.filters.taps(blur.filter, blur.rate[axis]), dtype=torch.float64)


CASES = [
    pytest.mark.parametrize("filter", ["delta1", "rect2", "tri3", "bin4", "bin5"]),
    pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "circular"]),
    pytest.mark.parametrize("rate", [(2, 2), (3, 1)]),
    pytest.mark.parametrize("size", [(11, 14), (12, 8), (4, 3)]),
    pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str),
]


def every_case(test):
    for mark in CASES:
        test = mark(test)
    return test


@pytest.mark.usefixtures("small_parts")
@every_case
@torch.no_grad()
def test_blur_pool_against_its_definition(
    filter: str, padding: str, rate: tuple[int, ...], size: tuple[int, int], layout: torch.memory_format
) -> None:
    blur, x = BlurPool(filter, rate, padding=padding), draw(3, 2, *size).to(memory_format=layout)
    expected = oracle(x, blur)
    assert (blur(x) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert (blur(x[0]) - expected[0]).abs().max() <= 1e-6 * expected.abs().max()
    by_axis = blur_of(x.shape, blur.kernel, blur.stride, padding)._compiled(x, blur.taps)
    assert by_axis.shape == expected.shape
    assert (by_axis - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.usefixtures("small_parts")
@every_case
def test_the_gradient_of_a_blur_is_that_of_its_definition(
    filter: str, padding: str, rate: tuple[int, ...], size: tuple[int, int], layout: torch.memory_format
) -> None:
    """At once, against autograd through a padding and a convolution, with autograd's own layout of the gradient."""
    layer, x = BlurPool(filter, rate, padding=padding).double(), draw(3, 2, *size, dtype=torch.float64)
    x = x.to(memory_format=layout).requires_grad_()
    borders = tuple(((m - 1) // 2, m // 2) for m in layer.kernel.shape)
    defined = Blur(layer.kernel, rate, borders, padding)._plain(x)
    for weights in (torch.ones(()).double(), draw(*defined.shape, dtype=torch.float64)):
        (expected,) = torch.autograd.grad((defined * weights).sum(), x, retain_graph=True)
        (found,) = torch.autograd.grad((layer(x) * weights).sum(), x)
        assert (found - expected).abs().max() <= 1e-14


@pytest.mark.parametrize("axes", [1, 3])
def test_blurs_of_other_maps_and_their_gradients(axes: int) -> None:
    layer = BlurPool("bin5", (2,) * axes).double()
    x = draw(2, 2, *(7 + axis for axis in range(axes)), dtype=torch.float64).requires_grad_()
    separate = x
    for axis in range(axes):
        one = BlurPool("bin5", (2,), axes=(axis - axes,)).double()
        separate = one(separate)
    assert (layer(x) - separate).abs().max() <= 1e-14
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_16_bits_a_blur_is_rounded_once(dtype: torch.dtype) -> None:
    layer, x = BlurPool("tri3", (2, 2)), draw(*SEVERAL_PARTS).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    found, exact = layer.to(dtype)(x), layer.float()(wide)
    assert torch.equal(found, exact.to(dtype))
    weights = draw(*found.shape).to(dtype)
    (gradient,) = torch.autograd.grad(found, x, weights)
    (expected,) = torch.autograd.grad(exact, wide, weights.float())
    assert torch.equal(gradient, expected.to(dtype))


@torch.no_grad()
def test_compiled_it_is_one_sum_without_a_convolution() -> None:
    torch._dynamo.reset()
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        called.extend(getattr(node.target, "__name__", str(node.target)) for node in graph.graph.nodes)
        return graph

    blur, x = BlurPool("tri3", (2, 2)), draw(2, 3, 9, 12)
    found = torch.compile(blur, fullgraph=True, backend=backend)(x)
    assert "conv2d" not in called
    assert (found - blur(x)).abs().max() <= 1e-6


@pytest.mark.parametrize("layer", ["blur", "pool of 2", "average"])
@torch.no_grad()
def test_compiled_behind_a_view_of_what_is_computed(layer: str) -> None:
    torch._dynamo.reset()
    model, x = LAYERS[layer], draw(3, 6, 9, 12)
    for view in (lambda y: (y + 1)[1:], lambda y: (y + 1)[:, 2:, 1:], lambda y: (y[:1] + 1).expand(3, -1, -1, -1)):
        found = torch.compile(lambda y, view=view: model(view(y)), fullgraph=True)(x)
        assert (found - model(view(x))).abs().max() <= 1e-6


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, for forward mode
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_forward_mode_and_batches_of_gradients(layer: nn.Module, layout: torch.memory_format) -> None:
    layer, x = layer.double(), draw(2, 2, 8, 10, dtype=torch.float64).to(memory_format=layout)
    tangent, jacobian = draw(*x.shape, dtype=torch.float64).flip(0), torch.autograd.functional.jacobian(layer, x)
    expected = (jacobian * tangent).sum(tuple(range(4, 8)))
    with forward_ad.dual_level():
        out = layer(forward_ad.make_dual(x.clone().requires_grad_(), tangent))
        assert (forward_ad.unpack_dual(out).tangent - expected).abs().max() <= 1e-12
    for graph in (False, True):
        found = torch.autograd.functional.jacobian(layer, x, vectorize=True, create_graph=graph)
        assert (found - jacobian).abs().max() <= 1e-12
    layer.float()


@pytest.mark.parametrize(
    "special", [[1.0, torch.nan, 2.0, 0.0], [torch.nan, torch.nan, 3.0, 1.0], [1.0, 4.0, 2.0, 0.0]]
)
def test_gradients_of_a_dense_maximum_that_are_not_finite(special: list[float]) -> None:
    gradient = torch.tensor([[[1.0, torch.inf, 1.0, 1.0]]])
    found = []
    for pool in (lambda x: dense_max(x, [3], [(1, 1)]), lambda x: F.max_pool1d(x, 3, 1, 1)):
        x = torch.tensor([[special]]).requires_grad_()
        found += torch.autograd.grad(pool(x), x, gradient)
    assert torch.equal(*found)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@torch.no_grad()
def test_a_compiled_pool_returns_what_it_returns_otherwise(layout: torch.memory_format) -> None:
    torch._dynamo.reset()
    model, x = LAYERS["pool of 2"], draw(2, 4, 17, 20).to(memory_format=layout)
    found = torch.compile(model, fullgraph=True)(x)
    assert (found - model(x)).abs().max() <= 1e-6
