"""Converted models under ``torch.compile`` and ``torch.export``: calls in somebody's forward, and graph breaks."""

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix

from .drawing import draw, scale_error
from .nets import Lambda, Net


def images(seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 64, 72, generator=torch.Generator().manual_seed(seed))


def nothing(x: Tensor) -> Tensor:
    return x


def breaks(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return x


def prints(x: Tensor) -> Tensor:
    print(end="")
    return x


def branches(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x * 3


@torch.compiler.disable
def pools_in_python(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 1, padding=1)[..., 1:, 1:]


class Functional(nn.Module):
    """Every call that samples is a function, and something happens before, between or after them.

    Args:
        happening: what happens, as a function of a map.
        places: where, of ``before``, ``between``, ``inside`` and ``after``.
    """

    def __init__(self, happening=nothing, places: str = "") -> None:
        super().__init__()
        self.happening = happening
        self.places = places.split()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()

    def at(self, place: str, x: Tensor) -> Tensor:
        return self.happening(x) if place in self.places else x

    def halved(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(F.conv2d(x, self.strided.weight, self.strided.bias, 2, 1)))
        return F.avg_pool2d(self.at("inside", x), 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("before", self.act(self.first(x)))
        x = self.at("between", F.max_pool2d(x, 3, 2, 1))
        x = self.halved(x)
        values, _ = F.max_pool2d(x, 2, return_indices=True)
        values = self.at("after", values)
        return values + F.interpolate(values, scale_factor=2)[:, :, ::2, ::2]


EVERYWHERE = "before between inside after"
HAPPENINGS = [
    *((breaks, place) for place in EVERYWHERE.split()),
    (breaks, EVERYWHERE),
    *(pytest.param(other, EVERYWHERE, marks=pytest.mark.slow) for other in (prints, branches, pools_in_python)),
]


def functional(*args) -> nn.Module:
    model = aliasfix.convert(draw(Functional(*args)), "tri3", inplace=True, example_input=images())
    assert len(aliasfix.report(model).converted) == 6
    return model


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # of dynamo's, about the break
@pytest.mark.parametrize(("happening", "places"), HAPPENINGS)
def test_a_graph_break_between_rewritten_calls(happening, places: str) -> None:
    torch._dynamo.reset()
    model = functional(happening, places)
    compiled = torch.compile(model, backend="eager")
    for x in (images(1), -images(1), images(2)):
        assert scale_error(model(x), compiled(x)) <= 1e-5


@torch.no_grad()
def test_without_a_break_it_is_one_graph() -> None:
    torch._dynamo.reset()
    model = functional()
    for backend in ("eager", "aot_eager"):
        assert scale_error(model(images()), torch.compile(model, fullgraph=True, backend=backend)(images())) <= 1e-5


def calling(*functions) -> nn.Module:
    """A model that calls functions on a map before and after it is halved."""

    def forward(net, x: Tensor) -> Tensor:
        for function in functions:
            x = F.max_pool2d(function(x), 2)
        return x

    return Lambda(forward)


SEEN = {
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "max_pool2d with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "slice": lambda x: x[:, :, ::2, ::2] - 2 * x[:, :, ::2, ::2],
    "relu": lambda x: F.relu(F.conv2d(x, x.new_ones(3, 3, 3, 3), stride=2)),
    "x * sigmoid(x)": lambda x: (y := F.conv2d(x, x.new_ones(3, 3, 3, 3), stride=2)) * y.sigmoid(),
    "add": lambda x: F.relu(F.conv2d(x, x.new_ones(3, 3, 3, 3), stride=2) + F.avg_pool2d(x[..., :-1, :-1], 2)),
    "gelu": lambda x: F.gelu(F.conv2d(x, x.new_ones(3, 3, 3, 3), stride=2)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, x.new_ones(3, 3, 4, 4), stride=2, padding=1),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 2.0, 2),
}
HIDDEN = {
    "hardswish": lambda x: F.hardswish(F.conv2d(x, x.new_ones(3, 3, 3, 3), stride=2)),
    "upsample": lambda x: F.upsample(x, scale_factor=2),
    "upsample_bilinear": lambda x: F.interpolate(F.upsample_bilinear(x, scale_factor=2), scale_factor=2),
}


def compared(function, **options) -> float:
    torch._dynamo.reset()
    model = calling(function, F.relu, function)
    model = aliasfix.convert(model, "tri3", example_input=images(), stem="full")
    assert any(step.op != "max_pool2d" for step in aliasfix.report(model).converted)
    return scale_error(model(images()), torch.compile(model, backend="eager", **options)(images()))


@torch.no_grad()
@pytest.mark.parametrize("function", SEEN.values(), ids=SEEN)
def test_a_call_has_the_same_number_under_dynamo(function) -> None:
    assert compared(function, fullgraph=True) <= 1e-6


REFUSED = (torch._dynamo.exc.Unsupported, aliasfix.AliasfixError)  # dynamo of torch 2.6 lets an error of ours through
SAYS_WHY = not torch.__version__.startswith("2.7")  # dynamo of torch 2.7 gives the type of an error, not its words


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN)
def test_a_call_that_dynamo_hides_is_right_or_refused(function) -> None:
    with pytest.raises(REFUSED, match="does not show calls of" if SAYS_WHY else "AliasfixError"):
        compared(function, fullgraph=True)
    if torch.__version__ < "2.7":
        with pytest.raises(REFUSED, match="does not show calls of"):
            compared(function)
    else:
        assert compared(function) <= 1e-6


@torch.no_grad()
def test_a_program_computes_the_same() -> None:
    for model in (functional(), aliasfix.convert(draw(Net()), example_input=images(), inplace=True)):
        program = torch.export.export(model, (images(),), strict=False)
        assert scale_error(model(images()), program.module()(images())) <= 1e-5


@torch.no_grad()
def test_a_strict_program_is_right_or_refused() -> None:
    layers = draw(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.AvgPool2d(2)))
    layers = aliasfix.convert(layers, "tri3", example_input=images())
    program = torch.export.export(layers, (images(),), strict=True)
    assert scale_error(layers(images()), program.module()(images())) <= 1e-5
    why = "with strict=False only" if SAYS_WHY else "AliasfixError|in the outputs"
    with pytest.raises((*REFUSED, AssertionError), match=why):
        torch.export.export(functional(), (images(),), strict=True)


def test_a_rewritten_forward_is_a_function_to_others() -> None:
    for model in (functional(), aliasfix.convert(nn.Sequential(nn.MaxPool2d(2)))[0]):
        own = type(model).forward
        assert inspect.signature(model.forward) == inspect.signature(own.__get__(model))
        assert (model.forward.__name__, model.forward.__code__) == ("forward", own.__code__)


def test_a_layer_of_torch_needs_no_mode() -> None:
    """Its forward is one function call, so that nothing has to listen for it."""
    modes = []
    pool = aliasfix.convert(nn.Sequential(nn.MaxPool2d(2)))
    pool[0].aliasfix_blur.register_forward_pre_hook(lambda *_: modes.append(torch._C._len_torch_function_stack()))
    pool(images())
    assert modes == [0]
