"""Everything that uses a value, and not only the next operation, sees the blur or the original size."""

import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.checks.laws import redraw

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, 2, 1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)
        self.cache = {}

    def forward(self, x):
        return F.relu(self.conv(self.stem(x)))


class ReturnsTheValueToo(Net):
    def forward(self, x):
        y = F.relu(self.conv(self.stem(x)))
        return [y, self.last(y)]


class ReturnsThePooled(Net):
    def forward(self, x):
        y = F.max_pool2d(self.stem(x), 3, 2, 1)
        return {"last": self.last(y), "pooled": y}


class ReturnsBeforeTheNonlinearity(Net):
    def forward(self, x):
        y = self.conv(self.stem(x))
        return F.relu(y), y


class ReadsTheSize(Net):
    def forward(self, x):
        x = self.stem(x)
        y = self.conv(x)
        return F.relu(y) + F.interpolate(x, size=y.shape[-2:], mode="bilinear")


class RunsItsChildren(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x):
        for module in self.children():
            x = F.relu(module(x))
        return x


class SlicesFiveDimensions(Net):
    def forward(self, x):
        return x.unsqueeze(1).expand(-1, 4, -1, -1, -1)[..., ::2, ::2] * 2


class KeepsACache(Net):
    def forward(self, x):
        x = F.relu(self.conv(self.stem(x)))
        size = x.shape[-1]
        if size not in self.cache:
            self.cache[size] = torch.linspace(0, 1, size)
        return x * self.cache[size]


class HasAPreHook(Net):
    def __init__(self):
        super().__init__()
        self.last.register_forward_pre_hook(lambda module, args: (F.instance_norm(args[0]),))

    def forward(self, x):
        return self.last(F.relu(self.conv(self.stem(x))))


class PoolsInASequential(nn.Sequential):
    """Hosts no blur, which would run as one of its layers."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    def forward(self, x):
        x = F.avg_pool2d(self[1](self[0](x)), 2)
        return self[3](self[2](F.max_pool2d(x, 2)))


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in (value.values() if isinstance(value, dict) else value) for t in _tensors(part)]


def _same(model, converted):
    for a, b in zip(_tensors(model(X)), _tensors(converted(X)), strict=True):
        torch.testing.assert_close(b, a)


@torch.no_grad()
@pytest.mark.parametrize(
    "build",
    [
        *(ReturnsTheValueToo, ReturnsThePooled, ReturnsBeforeTheNonlinearity, ReadsTheSize, RunsItsChildren),
        *(SlicesFiveDimensions, KeepsACache, HasAPreHook, PoolsInASequential),
    ],
)
def test_delta1_wherever_the_value_goes(build):
    model = redraw(build()).eval()
    converted = aliasfix.convert(model, "delta1", example_input=X)
    assert aliasfix.report(converted).converted
    _same(model, converted)
    blurred = aliasfix.convert(model, "tri3", example_input=X)
    shapes = [t.shape for t in _tensors(model(X))]
    assert [t.shape for t in _tensors(blurred(X))] == shapes


@torch.no_grad()
def test_a_forward_of_the_instance_stays():
    model = redraw(Net()).eval()
    model.forward = types.MethodType(lambda self, x: F.relu(self.conv(self.stem(x))) * 3 + 1, model)
    converted = aliasfix.convert(model, "delta1", example_input=X)
    assert aliasfix.report(converted).converted
    _same(model, converted)
    assert aliasfix.revert(converted).forward.__func__ is model.forward.__func__
    model.last = nn.MaxPool2d(2)
    model.forward = types.MethodType(lambda self, x: self.last(self.stem(x)) * 3 + 1, model)
    converted = aliasfix.convert(model, "delta1", example_input=X)
    _same(model, converted)
    _same(model, aliasfix.revert(converted))


@torch.no_grad()
@pytest.mark.parametrize(("pool", "form"), [(nn.AvgPool2d, "fused"), (nn.MaxPool2d, "dense")])
def test_a_pool_whose_own_forward_was_wrapped(pool, form):
    model = redraw(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), pool(2), nn.Conv2d(4, 4, 3))).eval()
    own = model[2].forward
    model[2].forward = lambda x: own(x)
    converted = aliasfix.convert(model, "delta1", example_input=X, inplace=True)
    assert [step.form for step in aliasfix.report(converted)] == [form]
    found = converted(X)
    expected = F.conv2d(pool(2)(F.relu(model[0](X))), model[3].weight, model[3].bias)
    assert (found - expected).abs().max() <= 1e-5


def test_a_rewritten_method_keeps_its_signature():
    import inspect

    converted = aliasfix.convert(ReturnsThePooled(), example_input=X)
    assert list(inspect.signature(converted.forward).parameters) == ["x"]


def test_a_predicate_may_pick_a_name_with_glob_characters():
    model = nn.Sequential()
    model.add_module("a[0]", nn.MaxPool2d(2))
    plan = aliasfix.inspect(model, include=lambda module, path: path == "a[0]", example_input=X)
    assert len(plan.converted) == 1


class _Heads(nn.Module):
    """What a detector runs on what it finds: nothing, here."""

    def __init__(self):
        super().__init__()
        self.heads = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AvgPool2d(2, ceil_mode=True),
            nn.ConvTranspose2d(4, 4, 2, 2),
            nn.Conv2d(4, 4, 1, 2),
        )

    def forward(self, x):
        return self.heads(x[:0])


@pytest.mark.parametrize("average", ["keep", "replace"])
def test_heads_that_get_nothing_are_converted(average):
    model, x = _Heads().eval(), torch.rand(2, 3, 33, 32)
    converted = aliasfix.convert(model, example_input=x, stem="full", average=average)
    assert len(aliasfix.report(converted).converted) == 5
    assert converted(x).shape == model(x).shape
