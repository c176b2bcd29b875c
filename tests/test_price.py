"""The price in a plan is what torch's own counter finds when the models run."""

import math
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import aliasfix
from aliasfix.planning.rule import Case, rules

from .nets import Net

MODELS = {
    "alexnet": lambda: torchvision.models.alexnet(),
    "resnet18": lambda: torchvision.models.resnet18(),
    "densenet121": lambda: torchvision.models.densenet121(),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(),
    "convnext_atto": lambda: timm.create_model("convnext_atto"),
    "repvgg_a0": lambda: timm.create_model("repvgg_a0"),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=(96, 128), window_size=4, embed_dim=24, depths=(1, 1, 1, 1)
    ),
    "net": Net,
}


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """What torch counts while the model really runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize(
    "options",
    [{"gather": "blur"}, {"filter": "bin4", "average": "replace", "gather": "blur", "stem": "full"}],
    ids=["paper", "full"],
)
@pytest.mark.filterwarnings("ignore::aliasfix.errors.LatticeWarning")
def test_totals_are_what_torch_counts(build: Callable[[], nn.Module], options: dict[str, str]) -> None:
    model, x = build().eval(), torch.zeros(1, 3, 96, 128)
    plan = aliasfix.inspect(model, example_input=x, **options)
    assert plan.traced == x.shape
    assert plan.cost is not None
    assert plan.cost.original.multiply_adds == multiply_adds(model, x)
    converted = aliasfix.convert(model, example_input=x, inplace=True, **options)
    assert plan.cost.converted.multiply_adds == multiply_adds(converted, x)
    assert plan.cost.ratio > 1
    added = [step.cost.difference.multiply_adds for step in plan]
    assert plan.cost.difference.multiply_adds == sum(added)


DOWN = [
    pytest.param(case, id=f"{rule.name}-{case.name}")
    for rule in rules()
    for case in rule.cases
    if case.kept is None and rule.purpose == "sampling"
    if rule.name not in ("max_unpool", "pixel_shuffle", "transposed_conv")
]


@pytest.mark.parametrize("case", DOWN)
@torch.no_grad()
def test_totals_of_every_rule(case: Case) -> None:
    model, x = case.build().eval(), torch.zeros(case.shape)
    plan = aliasfix.inspect(model, example_input=x, gather="blur")
    converted = aliasfix.convert(model, example_input=x, gather="blur")
    assert plan.cost.original.multiply_adds == multiply_adds(model, x)
    assert plan.cost.converted.multiply_adds == multiply_adds(converted, x)


def test_bytes_of_a_small_model_counted_by_hand() -> None:
    """Maps of 4x16x16 floats, 4096 bytes: what is made, and what is read and written."""
    model = nn.Sequential(nn.ReLU(), nn.ReLU(inplace=True), nn.Flatten(2), nn.Unflatten(2, (16, 16)), nn.MaxPool2d(2))
    plan = aliasfix.inspect(model, example_input=torch.zeros(1, 4, 16, 16))
    before, after = plan.cost.original, plan.cost.converted
    assert before.activations == 4096 + 1024
    assert before.traffic == 2 * 4096 + 2 * 4096 + 4096 + 1024
    dense = 4 * 15 * 15 * 4
    assert after.activations == 4096 + dense + 1024
    assert after.traffic == 2 * 4096 + 2 * 4096 + (4096 + dense) + (dense + 1024)
    assert after.multiply_adds == 4 * 8 * 8 * 9


# -- the budget ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 1.1, 1.5])
def test_a_budget_is_kept_and_leaves_out_what_costs_most(budget: float) -> None:
    model, x = torchvision.models.resnet18(), torch.zeros(1, 3, 64, 96)
    free, plan = (aliasfix.inspect(model, example_input=x, budget=limit) for limit in (None, budget))
    converted = aliasfix.convert(model, example_input=x, budget=budget) if plan.converted else model
    assert multiply_adds(converted.eval(), x) <= budget * multiply_adds(model.eval(), x)
    assert plan.cost.ratio <= budget
    price = {step.path: step.cost.difference.multiply_adds / math.prod(_shape(model, step.path, x)) for step in free}
    left = [step for step in plan.kept if step.path in {s.path for s in free.converted}]
    assert (budget < free.cost.ratio) == bool(left)
    for step in left:
        assert "budget" in step.reason
        assert all(price[step.path] >= price[other.path] for other in plan.converted)
    if left:  # the last one left out was one too many
        cheapest = min(left, key=lambda step: price[step.path])
        assert (
            plan.cost.converted.multiply_adds + _added(free, cheapest.path) > budget * free.cost.original.multiply_adds
        )


def _added(plan: aliasfix.Plan, path: str) -> int:
    return next(step.cost.difference.multiply_adds for step in plan if step.path == path)


def _shape(model: nn.Module, path: str, x: Tensor) -> torch.Size:
    seen = []
    handle = model.get_submodule(path).register_forward_hook(lambda *args: seen.append(args[-1].shape))
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("budget", [1, 1.1, 1.5])
def test_a_budget_of_memory(budget: float) -> None:
    model, x = timm.create_model("resnet18").eval(), torch.zeros(1, 3, 64, 96)
    free, plan = (aliasfix.inspect(model, example_input=x, memory_budget=limit) for limit in (None, budget))
    ratio = plan.cost.converted.activations / plan.cost.original.activations
    assert ratio <= budget
    left = [step for step in plan.kept if step.path in {s.path for s in free.converted}]
    assert bool(left) == (free.cost.converted.activations > budget * free.cost.original.activations)
    assert all("MiB of activations" in step.reason and "budget" in step.reason for step in left)
    if left:  # the last one left out was one too many
        added = {step.path: step.cost.difference.activations for step in free}
        last = min(left, key=lambda step: added[step.path] / math.prod(_shape(model, step.path, x)))
        assert plan.cost.converted.activations + added[last.path] > budget * plan.cost.original.activations


def test_both_budgets_are_kept() -> None:
    model, x = torchvision.models.vgg11_bn(), torch.zeros(1, 3, 64, 64)
    plan = aliasfix.inspect(model, example_input=x, budget=1.001, memory_budget=1.05)
    reasons = " ".join(step.reason for step in plan.kept)
    assert "million multiply-adds" in reasons
    assert "MiB of activations" in reasons
    assert plan.cost.ratio <= 1.001
    assert plan.cost.converted.activations <= 1.05 * plan.cost.original.activations


@pytest.mark.parametrize("option", ["budget", "memory_budget"])
@pytest.mark.parametrize("budget", [0.9, math.inf, "1.1", True])
def test_a_budget_that_is_none_is_an_error(option: str, budget: object) -> None:
    with pytest.raises(aliasfix.AliasfixError, match=f"^{option}="):
        aliasfix.Recipe(**{option: budget})


def test_a_recipe_and_a_plan_stored_without_prices_are_read() -> None:
    plan = aliasfix.inspect(nn.Sequential(nn.MaxPool2d(2)))
    text = plan.to_json()
    assert aliasfix.Plan.from_json(text).cost == plan.cost
    assert aliasfix.Plan.from_json(text).steps[0].cost == plan.steps[0].cost
    assert aliasfix.Recipe.from_json('{"filter": "tri3"}').budget is None
