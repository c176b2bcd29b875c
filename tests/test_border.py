"""Circular borders: what pads commutes with shifts, in every operation of a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.checks.laws import redraw
from aliasfix.planning.rule import by_name

from .nets import Net

BORDER = by_name("border")


@pytest.mark.parametrize("case", BORDER.cases, ids=lambda case: case.name)
def test_an_operation_with_circular_borders_commutes_with_shifts(case):
    model, x = redraw(case.build()).eval(), torch.randn(case.shape, dtype=torch.float64)
    model.double()
    circular = aliasfix.convert(model, padding="circular", example_input=x)
    axes = tuple(range(2, x.dim()))
    shift = (3,) * len(axes)
    moved = circular(x).roll(shift, axes)
    torch.testing.assert_close(circular(x.roll(shift, axes)), moved, rtol=0, atol=1e-12)
    assert (model(x.roll(shift, axes)) - model(x).roll(shift, axes)).abs().max() > 1e-3


def test_a_convolution_equals_that_of_torch_with_padding_mode_circular():
    model, x = nn.Conv2d(3, 4, 5, padding=2), torch.randn(2, 3, 9, 12)
    circular = aliasfix.convert(model, padding="circular", example_input=x)(x)
    model.padding_mode = "circular"
    assert torch.equal(circular, model(x))


def test_channels_are_padded_with_zeros():
    class Padded(nn.Module):
        def forward(self, x):
            return F.pad(x, (1, 1, 1, 1, 2, 0))

    x = torch.randn(1, 3, 4, 5)
    out = aliasfix.convert(Padded(), padding="circular", example_input=x)(x)
    assert torch.equal(out[:, 2:], F.pad(x, (1, 1, 1, 1), mode="circular"))
    assert not out[:, :2].any()


def test_other_paddings_leave_borders_alone():
    plan = aliasfix.inspect(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)), example_input=torch.ones(1, 3, 8, 8)
    )
    assert [step.rule for step in plan] == ["max_pool"]


def test_a_method_is_a_set_of_options_and_what_is_given_beside_it_wins():
    model, x = Net(), torch.ones(1, 3, 32, 32)
    recipe = aliasfix.inspect(model, method="aps", example_input=x).recipe
    assert (recipe.filter, recipe.padding, recipe.stem, recipe.phase) == ("delta1", "circular", "whole", "adaptive")
    recipe = aliasfix.inspect(model, "bin5", method="aps", stem="keep", example_input=x).recipe
    assert (recipe.filter, recipe.padding, recipe.stem, recipe.phase) == ("bin5", "circular", "keep", "adaptive")
    with pytest.raises(aliasfix.AliasfixError, match="choose one of afc, aps"):
        aliasfix.convert(model, method="nothing")
    with pytest.raises(aliasfix.AliasfixError, match="recipe= alone"):
        aliasfix.convert(model, method="aps", recipe=recipe)
