"""Match the rules against a trace and plan what is done to each call that samples."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Collection, Sequence

from torch import fx, nn

from . import filters, forms, lattice, stem
from .errors import AliasfixError
from .forms import Call
from .places import Scene, describe
from .plan import BlurCall, BlurModule, Edit, Plan, ReplaceCall, Step
from .recipe import Recipe
from .rule import by_op
from .trace import Trace


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
    calls = _plan_trace(scene, recipe, known=set())
    report = lattice.check(evaluation, {c.node: c.shift for c in calls if c.reason is None and any(c.shift)})
    calls += _plan_trace(Scene(model, training), recipe, known=set(scene.twins.values()))
    numbers: Counter[tuple[str, str]] = Counter()
    steps = []
    for call in calls:
        place = call.node.meta["path"], call.node.meta["op"]
        steps.append(_step(call, numbers[place]))
        numbers[place] += 1
    if report.drifts and len(filters.taps(recipe.filter, 2)) % 2 and recipe.average == "keep":
        drift = report.drifts[0]
        raise AliasfixError(
            f"{drift.path}: {drift.op} would meet branches {drift.shift} input samples apart, which an odd filter must "
            "not do; please report the model"
        )
    return Plan(recipe, tuple(steps), report, tuple(notes))


def _plan_trace(scene: Scene, recipe: Recipe, known: Collection[fx.Node]) -> list[Call]:
    """The calls of one mode, but for those that are known from the other."""
    everything = _find(scene.trace)
    first = stem.stems(scene.trace, {call.node for call in everything if not call.site.enlarges})
    calls = [call for call in everything if call.node not in known]
    for call in calls:
        call.reason = call.site.reason or _policy(call, recipe, call.node in first)
    forms.choose(scene, recipe, calls, first)
    _choose_places(scene, calls)
    return calls


def _find(trace: Trace) -> list[Call]:
    rules = by_op()
    calls = []
    for node in trace.graph.nodes:
        rule = rules.get(node.meta.get("op", ""))
        if node.op != "call_function" or rule is None:
            continue
        bound = rule.bind(node.meta["op"], node.args, node.kwargs)
        site = rule.site(node.meta["op"], bound, node, trace)
        if site is not None:
            calls.append(Call(node, rule, site, bound))
    return calls


def _policy(call: Call, recipe: Recipe, first: bool) -> str | None:
    """Why the recipe leaves a call alone, None where it does not."""
    path = call.node.meta["path"]
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
                next((edit for edit in need if proposed[edit] == scene.invocations(edit)), None) for need in call.needs
            ]
            if None in chosen:
                failed = True
                for other in call.shared or [call]:
                    other.reason = "Its calls differ in what follows, so that no one place serves all of them."
            call.edits = tuple(edit for edit in chosen if edit is not None)
        if not failed:
            return


def _step(call: Call, number: int) -> Step:
    path, op = call.node.meta["path"], call.node.meta["op"]
    step = Step(path, number, op, call.rule.name, call.site.stride, "keep", reason=call.reason)
    if call.reason is not None:
        return step
    owner = next((c for c in call.shared if any(_is_blur(edit) for edit in c.edits)), call)
    blur = next(edit for edit in owner.edits if _is_blur(edit))
    return dataclasses.replace(step, action="convert", form=call.form, placement=describe(blur), edits=call.edits)


def _is_blur(edit: Edit) -> bool:
    return isinstance(edit, BlurModule | BlurCall | ReplaceCall)
