"""A function call belongs to the method that it is made in, whatever that method is called, wrapped or bound with."""

import copy
import functools
import re
import types

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix

from .nets import tri3

X = torch.rand(2, 3, 16, 18, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), 2)


class NotSelf(Plain):
    def forward(module, x):
        return F.max_pool2d(module.conv(x), 2)


class InAVariable(Plain):
    def forward(self, x):
        x, self = self.conv(x), None
        return F.max_pool2d(x, 2)


def _calls_the_same_first(method):
    def wrapper(*args):
        F.max_pool2d(args[1], 2)
        return method(*args)

    return wrapper


class Decorated(Plain):
    @_calls_the_same_first
    def forward(self, x):
        return F.max_pool2d(self.conv(x), 2)


class PartialMethod(Plain):
    def _pooled(self, size, x):
        return F.max_pool2d(self.conv(x), size)

    forward = functools.partialmethod(_pooled, 2)


class BoundBefore(Plain):
    def __init__(self):
        super().__init__()
        self.run = self.pooled

    def pooled(self, x):
        return F.max_pool2d(self.conv(x), 2)

    def forward(self, x):
        return self.run(x)


def pooled(net, x):
    return F.max_pool2d(net.conv(x), 2)


class GivesItselfToAFunction(Plain):
    def pooled(self):
        """The name of the function is one of a method."""

    def forward(self, x):
        return pooled(self, x)


class Helper:
    def pooled(self, x):
        return F.max_pool2d(x, 2)


class BoundFromAnother(Plain):
    def __init__(self):
        super().__init__()
        self.pooled = Helper().pooled

    def forward(self, x):
        return self.pooled(self.conv(x))


class Recursive(Plain):
    def pooled(self, x, depth):
        return F.max_pool2d(self.conv(x), 2) if depth == 0 else self.pooled(x, depth - 1)

    def forward(self, x):
        return self.pooled(x, 2)


class Generator(Plain):
    def maps(self, x):
        yield F.max_pool2d(self.conv(x), 2)

    def forward(self, x):
        return next(self.maps(x))


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Plain()]

    @property
    def conv(self):
        return self.layers[0].conv

    def forward(self, x):
        return self.layers[0](x)


class OwnCall(nn.Module):
    """A part pools in a ``__call__`` of its own."""

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def __call__(self, x):
            return F.max_pool2d(super().__call__(x), 2)

        def forward(self, x):
            return self.conv(x)

    def __init__(self):
        super().__init__()
        self.part = self.Part()

    @property
    def conv(self):
        return self.part.conv

    def forward(self, x):
        return self.part(x)


def _partial() -> nn.Module:
    model = Plain()
    model.forward = functools.partial(pooled, model)
    return model


def _bound() -> nn.Module:
    model = Plain()
    model.forward = types.MethodType(pooled, model)
    return model


def _decorated_later() -> nn.Module:
    model = Plain()
    model.forward = torch.no_grad()(model.forward)
    return model


CLASSES = (
    *(NotSelf, InAVariable, Decorated, PartialMethod, BoundBefore, GivesItselfToAFunction, BoundFromAnother),
    *(Recursive, Generator, Unregistered, OwnCall),
)


@torch.no_grad()
@pytest.mark.parametrize("build", [*CLASSES, _partial, _bound, _decorated_later])
def test_a_call_is_converted_whoever_makes_it(build):
    model = build().eval()
    converted = aliasfix.convert(model, example_input=X)
    expected = tri3(F.max_pool2d(model.conv(X), 2, 1))
    assert (converted(X) - expected).abs().max() <= 1e-6
    assert (copy.deepcopy(converted)(X) - expected).abs().max() <= 1e-6
    assert torch.equal(aliasfix.revert(converted)(X), model(X))
    aliasfix.convert(model, example_input=X, inplace=True)
    assert (model(X) - expected).abs().max() <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize("build", [_partial, _bound])
def test_a_forward_of_the_instance_is_exported(build):
    converted = aliasfix.convert(build().eval(), example_input=X)
    program = torch.export.export(converted, (X,), strict=False)
    assert torch.equal(program.module()(X), converted(X))


class PoolsInCall(Plain):
    def __call__(self, x):
        return super().__call__(F.max_pool2d(x, 2))


class Callable:
    def __call__(self, x):
        return F.max_pool2d(x, 2)


class NoMethod(nn.Module):
    forward = Callable()


class PoolsAsAContainer(nn.Sequential):
    def forward(self, x):
        return F.avg_pool2d(super().forward(x), 2)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (PoolsInCall(), r"max_pool2d is called by (PoolsInCall\.)?__call__, and not within a method"),
        (NoMethod(), r"max_pool2d is called by (Callable\.)?__call__, and not within a method"),
        (PoolsAsAContainer(nn.Conv2d(3, 4, 3)), "No module around it can hold a blur"),
    ],
)
def test_what_no_method_holds_says_so(model, reason):
    (step,) = aliasfix.inspect(model, example_input=X).kept
    assert re.search(reason, step.reason)


@torch.no_grad()
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_forward_of_the_instance_may_read_the_stride_or_not(wrapped):
    model = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()).eval()
    own, weight, bias = model[1].forward, model[1].weight, model[1].bias
    if wrapped:
        model[1].forward = functools.wraps(own)(lambda x: own(x))
    else:
        model[1].forward = lambda x: F.conv2d(x, weight, bias, 2, 1)
    converted = aliasfix.convert(model, example_input=X, include=["1"], inplace=True)
    assert (converted(X) - tri3(F.relu(F.conv2d(F.max_pool2d(X, 2), weight, bias, 1, 1)))).abs().max() <= 1e-6
    assert model[1].stride == ((1, 1) if wrapped else (2, 2))
