"""Match the rules against a trace and plan what is done to each call that samples."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Collection, Sequence

from torch import fx, nn

from .. import filters
from ..errors import AliasfixError
from ..recipe import Recipe
from ..tracing.operation import of
from ..tracing.trace import Trace
from . import forms, lattice, price, stem
from .cost import Cost, Price
from .forms import Call
from .places import Scene
from .plan import Plan, Step
from .rule import by_op


def make_plan(model: nn.Module, recipe: Recipe, traces: Sequence[Trace], notes: Sequence[str] = ()) -> Plan:
    """Plan the conversion of a recorded model.

    Args:
        model: the model, not changed.
        recipe: with include and exclude as globs.
        traces: of evaluation and of training; the latter adds only the calls that the former lacks.
        notes: for the plan's reader.

    Raises:
        AliasfixError: a glob that matches no module, or branches that an odd filter moved apart.
    """
    _check_globs(model, recipe)
    evaluation, training = traces
    scene = Scene(model, evaluation, training)
    original = price.of_trace(evaluation)
    calls = _plan_trace(scene, recipe, set(), original)
    costs = [price.of_step(call, recipe) for call in calls]
    converted = sum((each.difference for each in costs), original)
    report = lattice.check(evaluation, {c.node: c.shift for c in calls if c.reason is None and any(c.shift)})
    # what training alone makes of constants is of its targets: no data runs through the model there
    targets = {node for node in training.graph.nodes if not of(node).variable}
    calls += _plan_trace(Scene(model, training), recipe, targets.union(scene.twins.values()))
    costs += [price.of_step(call, recipe) for call in calls[len(costs) :]]
    numbers: Counter[tuple[str, str]] = Counter()
    steps = []
    for call, each in zip(calls, costs, strict=True):
        place = of(call.node).path, of(call.node).name
        steps.append(_step(call, numbers[place], each))
        numbers[place] += 1
    if report.drifts and len(filters.taps(recipe.filter, 2)) % 2 and recipe.average == "keep":
        drift = report.drifts[0]
        raise AliasfixError(
            f"{drift.path}: {drift.op} would meet branches {drift.shift} input samples apart, which an odd filter must "
            "not do; please report the model"
        )
    cost = Cost(original, converted)
    return Plan(recipe, tuple(steps), report, tuple(notes), cost=cost, traced=_traced(evaluation))


def _traced(trace: Trace) -> tuple[int, ...]:
    """The shape of the first input."""
    shapes = (of(node).sizes for node in trace.graph.nodes if node.op == "placeholder")
    return next(shapes, ())


def _plan_trace(scene: Scene, recipe: Recipe, known: Collection[fx.Node], original: Price | None = None) -> list[Call]:
    """The calls of one mode, but for those that are known from the other; within the budget on top of ``original``."""
    everything = _find(scene.trace)
    first = stem.stems(scene.trace, {call.node for call in everything if not call.site.enlarges})
    calls = [call for call in everything if call.node not in known]
    for call in calls:
        call.reason = call.site.reason or _policy(call, recipe, call.node in first)
    forms.choose(scene, recipe, calls, first)
    _choose_places(scene, calls)
    for quantity, limit in (("multiply_adds", recipe.budget), ("activations", recipe.memory_budget)):
        if limit is not None and original is not None:
            _keep_to_budget(scene, recipe, calls, quantity, limit, original)
    return calls


def _find(trace: Trace) -> list[Call]:
    rules = by_op()
    calls = []
    for node in trace.graph.nodes:
        rule = rules.get(of(node).name)
        if node.op != "call_function" or rule is None:
            continue
        site = rule.site(of(node), trace)
        if site is not None:
            calls.append(Call(node, rule, site, of(node).arguments))
    return calls


def _policy(call: Call, recipe: Recipe, first: bool) -> str | None:
    """Why the recipe leaves a call alone, None where it does not."""
    path = of(call.node).path
    if recipe.exclude is not None and matches(path, recipe.exclude):
        return "It is excluded by the recipe."
    if recipe.include is not None:
        return None if matches(path, recipe.include) else "It is not among what the recipe includes."
    if call.rule.stem and first:
        return stem.reason_to_keep(call.site, recipe.stem)
    return None


def matches(path: str, globs: Collection[str]) -> bool:
    """Whether a glob matches a module path, or that of a module around it.

    >>> matches("layer4.0.conv2", ["layer4"]), matches("layer4.0.conv2", ["*.conv1"])
    (True, False)
    """
    parts = path.split(".")
    around = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(name, glob) for name in around for glob in globs)


def _check_globs(model: nn.Module, recipe: Recipe) -> None:
    paths = [path for path, _ in model.named_modules()]
    for glob in (*(recipe.include or ()), *(recipe.exclude or ())):
        if not any(fnmatch.fnmatchcase(path, glob) for path in paths):
            examples = ", ".join(path for path in paths if path)[:120]
            raise AliasfixError(f"{glob!r} matches no module of the model; its modules are {examples} …")


# -- places --------------------------------------------------------------------------------------------------


def _choose_places(scene: Scene, calls: Sequence[Call]) -> None:
    """Give every need the first edit that acts at all invocations of its place; calls without one are kept."""
    while True:
        going = [call for call in calls if call.reason is None]
        proposed = Counter(edit for call in going for need in call.needs for edit in dict.fromkeys(need))
        failed = False
        for call in going:
            chosen = [
                next((edit for edit in need if proposed[edit] == edit.invocations(scene.trace)), None)
                for need in call.needs
            ]
            if None in chosen:
                failed = True
                for other in call.shared or [call]:
                    other.reason = "Its calls differ in what follows, so that no one place serves all of them."
            call.edits = tuple(edit for edit in chosen if edit is not None)
        if not failed:
            return


def _keep_to_budget(
    scene: Scene, recipe: Recipe, calls: Sequence[Call], quantity: str, limit: float, original: Price
) -> None:
    """Leave out the sites that add most of a quantity for each value they sample, until the rest is within the limit.

    Calls that share a blur are one site. A site that adds none is never left out.
    """
    room = (limit - 1) * getattr(original, quantity)
    while True:
        going = [call for call in calls if call.reason is None]
        added = {id(call): getattr(price.of_step(call, recipe).difference, quantity) for call in going}
        if sum(added.values()) <= room:
            return
        sites = {id(group[0]): group for group in (call.shared or [call] for call in going)}.values()
        worst = max(sites, key=lambda group: sum(added[id(c)] / price.samples(c) for c in group))
        extra = Price(**{quantity: sum(added[id(call)] for call in worst)}).told(quantity)
        for call in worst:
            call.reason = (
                f"It adds {extra}, more for each value it samples than what is converted, and the budget is {limit:g} "
                "times the original's."
            )
        _choose_places(scene, calls)


def _step(call: Call, number: int, cost: Cost) -> Step:
    path, op = of(call.node).path, of(call.node).name
    step = Step(path, number, op, call.rule.name, call.site.stride, "keep", reason=call.reason, cost=cost)
    if call.reason is not None:
        return step
    owner = next((c for c in call.shared if any(edit.inserted for edit in c.edits)), call)
    blur = next(edit for edit in owner.edits if edit.inserted)
    return dataclasses.replace(step, action="convert", form=call.form, placement=blur.place, edits=call.edits)
