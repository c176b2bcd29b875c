"""Where the samples of every tensor lie, and whether branches meet on the same lattice."""

import contextlib

import pytest
import torch
from torch import nn

import aliasfix


class Residual(nn.Module):
    """A strided branch and a shortcut that meet in an add."""

    def __init__(self, kernel: int = 3, padding: int = 1, shortcut: int = 1) -> None:
        super().__init__()
        self.stem = nn.MaxPool2d(1, 2)
        self.conv = nn.Conv2d(3, 4, kernel, 2, padding)
        self.act = nn.ReLU()
        self.shortcut = nn.Conv2d(3, 4, shortcut, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.act(self.conv(x)) + self.shortcut(x)


EXAMPLE = torch.ones(1, 3, 16, 16)


def test_an_odd_filter_leaves_merges_as_they_were():
    lattice = aliasfix.inspect(Residual(), "tri3", example_input=EXAMPLE).lattice
    assert (lattice.merges, lattice.aligned_before, lattice.aligned_after, lattice.drifts) == (1, 1, 1, ())


def test_an_even_filter_moves_both_branches_alike():
    lattice = aliasfix.inspect(Residual(), "rect2", example_input=EXAMPLE).lattice
    assert (lattice.aligned_after, lattice.drifts) == (1, ())


def test_an_even_filter_on_one_branch_alone_is_a_drift_of_half_a_sample():
    model = Residual()
    plan = aliasfix.inspect(model, "bin4", example_input=EXAMPLE, exclude=["shortcut"])
    assert (plan.lattice.aligned_before, plan.lattice.aligned_after) == (1, 0)
    assert [abs(drift.shift) for drift in plan.lattice.drifts] == [1.0, 1.0]  # half a sample of the pooled map
    with pytest.warns(aliasfix.LatticeWarning, match="half|apart"):
        aliasfix.convert(model, "bin4", example_input=EXAMPLE, exclude=["shortcut"])


def test_an_original_that_meets_off_lattice_is_said_so_and_not_made_worse():
    lattice = aliasfix.inspect(Residual(kernel=2, padding=0), "tri3", example_input=EXAMPLE).lattice
    assert (lattice.merges, lattice.aligned_before, lattice.aligned_after, lattice.drifts) == (1, 0, 0, ())


@pytest.mark.parametrize(("filter", "drifts"), [("tri3", 0), ("rect2", 2)])
def test_lattice_says_what_the_network_does(filter, drifts):
    """A ramp tells positions: each output is the mean position of what it looks at."""
    model = Residual()
    with torch.no_grad():
        for conv in (model.conv, model.shortcut):
            conv.weight.fill_(1 / conv.weight[0].numel())
            conv.bias.zero_()
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    plan = aliasfix.inspect(model, filter, example_input=ramp, exclude=["shortcut", "stem"])
    assert len(plan.lattice.drifts) == drifts
    expected = pytest.warns(aliasfix.LatticeWarning) if drifts else contextlib.nullcontext()
    with torch.no_grad(), expected:
        converted = aliasfix.convert(model, filter, example_input=ramp, exclude=["shortcut", "stem"])
        pooled = model.stem(ramp)
        gap = (converted.act(converted.conv(pooled)) - model.shortcut(pooled))[0, 0, 5, 5].item()
    assert gap == pytest.approx(plan.lattice.drifts[0].shift if drifts else 0.0, abs=1e-4)
