"""The laws of the design on every rule's cases."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import aliasfix
from aliasfix.checks.account import unaccounted
from aliasfix.checks.laws import redraw
from aliasfix.layers.blur import BlurPool
from aliasfix.layers.build import build as made
from aliasfix.layers.ladder import Passes
from aliasfix.layers.resampling import Resampling
from aliasfix.planning.rule import rules

CASES = [pytest.param(rule, case, id=f"{rule.name}-{case.name}") for rule in rules() for case in rule.cases]
CONVERTED = [param for param in CASES if param.values[1].kept is None]
SAMPLING = [param for param in CONVERTED if param.values[0].purpose == "sampling"]
KEPT = [param for param in CASES if param.values[1].kept is not None]
convert, inspect = partial(aliasfix.convert, gather="blur"), partial(aliasfix.inspect, gather="blur")  # all there is
FILTERS = ["rect2", "tri3", "bin4", "bin5", "bin6", "bin7"]


def build(case):
    torch.manual_seed(0)
    return redraw(case.build()).eval()


def draw(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sizes(case):
    """The case's size, the next larger one, and one of other proportions."""
    batch, channels, *spatial = case.shape
    if case.name == "four_of_one_map":  # channels last
        return [case.shape, (batch, channels + 2, spatial[0] + 4, 4)]
    step = case.multiple
    larger = (n + step for n in spatial)
    wider = (n + step * (2 + axis) for axis, n in enumerate(spatial))
    return [case.shape, (batch, channels, *larger), (batch, channels, *wider)]


def outputs(value):
    return [value] if isinstance(value, torch.Tensor) else [t for part in value for t in outputs(part)]


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_inspect_says_what_happens_to_the_call(rule, case):
    plan = inspect(build(case), example_input=draw(case.shape), **rule.options)
    step = [step for step in plan if step.rule == rule.name][-1]
    if case.kept is None:
        assert (step.action, step.reason) == ("convert", None)
        assert step.form is not None
        assert step.placement is not None
    else:
        assert (step.action, step.form, step.placement) == ("keep", None, None)
        assert case.kept in step.reason
        assert step.reason.endswith(".")


@pytest.mark.parametrize(("rule", "case"), SAMPLING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_delta1_returns_what_the_original_returns(rule, case, dtype):
    model = build(case).to(dtype)
    same = convert(model, "delta1", example_input=draw(case.shape, dtype=dtype), **rule.options)
    assert any(isinstance(module, BlurPool) for module in same.modules())
    for shape in sizes(case):
        x = draw(shape, dtype=dtype)
        for a, b in zip(outputs(model(x)), outputs(same(x)), strict=True):
            bound = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype] * a.abs().max().item()
            assert (a - b).abs().max().item() <= bound


@pytest.mark.parametrize(("rule", "case"), CONVERTED)
@pytest.mark.parametrize("filter", ["tri3", "bin4", "lsq7", "ideal", "kaiser", (0.1, 0.2, 0.4, 0.2, 0.1)])
def test_any_filter_keeps_shapes_keys_and_parameters(rule, case, filter):
    model = build(case)
    original = copy.deepcopy(model)
    parameters = list(model.parameters())
    converted = convert(model, filter, example_input=draw(case.shape), inplace=True, **rule.options)
    assert converted is model
    assert all(a is b for a, b in zip(parameters, converted.parameters(), strict=True))
    assert list(converted.state_dict()) == list(original.state_dict())
    converted.load_state_dict(original.state_dict(), strict=True)
    original.load_state_dict(converted.state_dict(), strict=True)
    for shape in sizes(case):
        x = draw(shape)
        before, after = outputs(original(x)), outputs(converted(x))
        assert [t.shape for t in before] == [t.shape for t in after]
        assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("rule", "case"), CONVERTED)
@torch.no_grad()
def test_no_values_are_asked_for_to_know_the_shapes(rule, case):
    model = build(case)
    converted = convert(model, example_input=draw(case.shape), **rule.options)
    for shape in sizes(case):
        real = outputs(converted(draw(shape)))
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            told = outputs(converted(fake.from_tensor(draw(shape))))
            assert [t.shape for t in told] == [t.shape for t in real]


@pytest.mark.parametrize(("rule", "case"), CONVERTED)
def test_twice_is_once_and_revert_gives_the_original_back(rule, case):
    model, x = build(case), draw(case.shape)
    converted = convert(model, example_input=x, **rule.options)
    again = convert(converted, example_input=x, **rule.options)
    assert all(torch.equal(a, b) for a, b in zip(outputs(converted(x)), outputs(again(x)), strict=True))
    assert str(again) == str(converted)
    with pytest.raises(aliasfix.AliasfixError, match="revert"):
        convert(converted, "bin5", example_input=x, **rule.options)
    reverted = aliasfix.revert(converted)
    assert aliasfix.report(reverted) is None
    assert str(reverted) == str(model)
    assert all(torch.equal(a, b) for a, b in zip(outputs(model(x)), outputs(reverted(x)), strict=True))


@pytest.mark.parametrize("filter", [name for name in aliasfix.filters.names() if name != "delta1"])
@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("rate", [(2,), (2, 2), (3, 1), (4, 4), (2, 2, 2)])
def test_a_constant_stays_constant_through_a_blur(filter, padding, rate):
    blur = made(aliasfix.Recipe(filter, padding), Resampling(rate, rate), False, Passes())
    for length in (1, 2, 7):
        x = torch.full((1, 2, *(length for _ in rate)), 3.0)
        torch.testing.assert_close(blur(x), torch.full_like(blur(x), 3.0))


def circular(model):
    """The whole model made circular: every convolution wraps; the recipe wraps what it converts."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd) and module.padding_mode == "zeros":
            module.padding_mode = "circular"
    return model


def shift_change(model, shape, shift):
    """How much the output of a one-sample shift of the input changes, the best matching output shift taken out."""
    total = 0.0
    for seed in range(8):
        x = draw(shape, seed)
        moved = model(torch.roll(x, shift, dims=-1))
        total += min((moved - torch.roll(model(x), s, dims=-1)).square().mean().sqrt().item() for s in (0, 1))
    return total / 8


EQUIVARIANT = {
    "max_pool": ["kernel_of_stride", "in_1d", "module"],
    "average_pool": ["module", "in_1d"],
    "strided_conv": ["then_relu", "then_norm_relu", "depthwise", "even_kernel", "shortcut", "patch_merging", "in_1d"],
}


@pytest.mark.parametrize(
    ("rule", "case"), [p for p in CONVERTED if p.values[1].name in EQUIVARIANT.get(p.values[0].name, ())]
)
def test_circular_output_changes_less_with_every_wider_filter(rule, case):
    shape = (*case.shape[:2], *(24 for _ in case.shape[2:]))
    changes = []
    for filter in ["delta1", *FILTERS]:
        model = convert(circular(build(case)), filter, padding="circular", example_input=draw(shape))
        changes.append(shift_change(model, shape, 1))
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < 0.5 * changes[0]


# What enlarges, and what rearranges by a reshape, strides over nothing that ATen could see.
NOT_STRIDED = ("interpolate", "max_unpool", "pixel_shuffle", "space_to_depth", "transposed_conv")
ONE_AXIS = ("rows", "in_1d", "haar")  # to ATen a slice along one axis may as well split a table


@pytest.mark.parametrize(("rule", "case"), CONVERTED)
def test_nothing_strided_is_unaccounted_for(rule, case):
    model, x = build(case), draw(case.shape)
    empty = aliasfix.Plan(aliasfix.Recipe(), ())
    converted = convert(model, example_input=x, **rule.options)
    strides = rule.purpose == "sampling" and rule.name not in NOT_STRIDED
    if strides and (rule.name != "spatial_slice" or case.name not in ONE_AXIS):
        assert unaccounted(model, empty, (x,), {})
    assert unaccounted(converted, aliasfix.report(converted), (x,), {}) == []


@pytest.mark.parametrize(("rule", "case"), KEPT)
def test_what_is_kept_is_accounted_for(rule, case):
    model, x = build(case), draw(case.shape)
    assert unaccounted(model, inspect(model, example_input=x, **rule.options), (x,), {}) == []


class PaddedOutside(nn.Module):
    """TensorFlow's "same" padding, computed from the stride by whoever calls the convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.MaxPool2d(2)
        self.conv = nn.Conv2d(4, 6, 3, 2)

    def forward(self, x):
        x = self.stem(x)
        total = [max(3 - (self.conv.stride[0] if n % 2 == 0 else 1), 0) for n in x.shape[-2:]]
        return nn.functional.relu(self.conv(nn.functional.pad(x, [total[1] // 2, 1, total[0] // 2, 1])))


def test_padding_that_is_computed_from_the_stride_stays():
    model, x = redraw(PaddedOutside()).eval(), draw((2, 4, 16, 20))
    same = convert(model, "delta1", example_input=x)
    torch.testing.assert_close(same(x), model(x))
    assert len(aliasfix.report(same).converted) == 2


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_a_plan_survives_json(rule, case):
    plan = inspect(build(case), example_input=draw(case.shape), **rule.options)
    assert aliasfix.Plan.from_json(plan.to_json()) == plan


def test_toy_example_of_the_paper():
    signal = torch.tensor([[[0.0, 0, 1, 1, 0, 0, 1, 1]]])
    shifted = torch.roll(signal, -1, -1)
    pool = nn.MaxPool1d(2)
    blurred = convert(pool, "tri3", padding="circular", example_input=signal)

    def outputs_of(model):
        around = [torch.cat([x, x[..., :1]], -1) for x in (signal, shifted)]
        return [model(x).flatten().tolist() for x in around]

    assert outputs_of(pool) == [[0, 1, 0, 1], [1, 1, 1, 1]]
    assert outputs_of(blurred) == [[0.5, 1, 0.5, 1], [0.75, 0.75, 0.75, 0.75]]
