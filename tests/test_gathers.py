"""What keeps all samples of a map is left alone, or blurred where the recipe says so."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import aliasfix
from aliasfix import Recipe


class Gathered(nn.Module):
    """A convolution, and what is done to its result."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 4, 3, padding=1), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def slices(x: Tensor, *offsets: tuple[int, int]) -> Tensor:
    return torch.cat([x[..., a::2, b::2] for a, b in offsets], 1)


def in_turn(x: Tensor) -> Tensor:
    rows = x[:, :, ::2] - x[:, :, 1::2]
    return rows[..., ::2] + rows[..., 1::2]


ALL = ((0, 0), (0, 1), (1, 0), (1, 1))
WHOLE = {
    "focus": lambda x: slices(x, *ALL),
    "haar": in_turn,
    "unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "one axis": lambda x: torch.cat([x[..., n::3] for n in range(3)], 1),
}
PART = {
    "behind the first row": lambda x: x[:, :, 2::2].sum() + x[:, :, 1::2],
    "without the last row": lambda x: x[:, :, :-2:2].sum() + x[:, :, 1::2],
    "one": lambda x: slices(x, (0, 0)),
    "three": lambda x: slices(x, *ALL[:3]),
    "twice": lambda x: slices(x, (0, 0), (0, 0), (0, 1), (1, 1)),
    "other steps": lambda x: x[:, :, ::2, ::2].sum() + x[:, :, 1::3, ::2] + x[:, :, ::3, ::2],
}


def reasons(then: Callable[[Tensor], Tensor], **options: str) -> set[str | None]:
    plan = aliasfix.inspect(Gathered(then), example_input=torch.zeros(2, 3, 12, 12), **options)
    assert plan.steps
    return {step.reason for step in plan}


@pytest.mark.parametrize("name", WHOLE)
def test_all_samples_are_kept_unless_asked(name: str) -> None:
    (reason,) = reasons(WHOLE[name])
    assert reason == "It drops no sample: all of them go to channels. gather='blur' blurs before it."
    assert reasons(WHOLE[name], gather="blur") == reasons(WHOLE[name], include="*") == {None}


@pytest.mark.parametrize("name", PART)
def test_a_part_of_them_is_sampling(name: str) -> None:
    assert reasons(PART[name]) == {None}


def test_the_warning_says_how_to_convert() -> None:
    with pytest.warns(aliasfix.NoEffectWarning, match="gather='blur'"):
        aliasfix.convert(Gathered(WHOLE["focus"]))


def test_recipes_without_the_option_mean_what_they_did() -> None:
    stored = json.loads(Recipe("bin5").to_json())
    del stored["gather"]
    assert Recipe.from_json(json.dumps(stored)) == Recipe("bin5", gather="blur")
