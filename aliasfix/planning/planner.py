"""Match the rules against a trace, and plan what is done to each call that samples."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from ..edits import Edit
from ..errors import AliasfixError
from ..recipe import Recipe
from ..tracing.operation import of
from ..tracing.trace import Trace
from . import lattice, phases, price, stem
from .choosing import choose
from .cost import Cost, Price
from .phases import Reach
from .places import Scene, why_nowhere
from .plan import Call, Link, Plan, Step
from .rewrites import Candidate, Dense, Rewrite
from .rule import by_op


def make_plan(model: nn.Module, recipe: Recipe, traces: Sequence[Trace], notes: Sequence[str] = ()) -> Plan:
    """Plan the conversion of a recorded model.

    Args:
        model: the model, which stays as it is.
        recipe: the options, with include and exclude as globs.
        traces: the traces of evaluation and of training. That of training adds the calls that evaluation lacks.
        notes: notes for the user.

    Raises:
        AliasfixError: a glob matches no module.
    """
    _check_globs(model, recipe)
    evaluation, training = traces
    scene = Scene(model, evaluation, training)
    original = price.of_trace(evaluation)
    decisions = _decide(scene, recipe, set(), original)
    converted = sum((each.cost.difference for each in decisions), original)
    shifts = {each.call.node: each.rewrite.shift for each in decisions if each.rewrite is not None}
    report = lattice.check(evaluation, {node: shift for node, shift in shifts.items() if any(shift)})
    # calls of training on constants process its targets, not data of the model
    targets = {node for node in training.graph.nodes if not of(node).variable}
    decisions += _decide(Scene(model, training), recipe, targets.union(scene.twins.values()))
    cost = Cost(original, converted)
    steps = _steps(decisions)
    links = _links(decisions, steps)
    return Plan(recipe, steps, report, tuple(notes), cost=cost, traced=_traced(evaluation), links=links)


def matched(plan: Plan, trace: Trace) -> dict[fx.Node, tuple[Candidate, Step]]:
    """Return the calls of a pass of the original that a plan has steps for."""
    steps = {(step.path, step.op, step.call): step for step in plan}
    numbers: Counter[tuple[str, str]] = Counter()
    found = {}
    for call in _find(trace, plan.recipe):
        path, op = call.operation.path, call.operation.name
        step = steps.get((path, op, numbers[path, op]))
        numbers[path, op] += 1
        if step is not None:
            found[call.node] = call, step
    return found


def _traced(trace: Trace) -> tuple[int, ...]:
    """Return the shape of the first input."""
    shapes = (of(node).sizes for node in trace.graph.nodes if node.op == "placeholder")
    return next(shapes, ())


@dataclass(frozen=True, eq=False)
class _Decision:
    """What is done to a call: a rewrite and its edits, or a reason to keep it."""

    call: Candidate
    reason: str | None
    rewrite: Rewrite | None
    edits: tuple[Edit, ...] = ()

    @property
    def cost(self) -> Cost:
        """The cost of the call, or of all that is rewritten with it."""
        if self.rewrite is not None:
            return self.rewrite.cost
        own = price.of_node(self.call.node)
        return Cost(own, own)


def _decide(scene: Scene, recipe: Recipe, known: Collection[fx.Node], original: Price | None = None) -> list[_Decision]:
    """Decide on the calls of one mode, except those that are known from the other mode.

    If the price of the ``original`` is given, the conversion stays within the recipe's budgets.
    """
    everything = _find(scene.trace, recipe)
    reaches = phases.reaches(scene.trace, {call.node: call.site for call in everything})
    adapts = recipe.phase == "adaptive"
    sampling = [call for call in everything if call.site.stride and not (call.site.enlarges or call.rule.resizes)]
    first = stem.stems(scene.trace, {call.node for call in sampling})
    calls = [call for call in everything if call.node not in known]
    policies = {call.node: _policy(call, recipe, call.node in first, adapts and call.node in reaches) for call in calls}
    kept = {node: reason for node, reason in policies.items() if reason is not None}
    if adapts:
        calls = _adaptive(calls, phases.shared(reaches, kept), recipe)
        kept |= {call.node: str(call.site.reason) for call in calls if call.reach is None and call.site.smooth}
    rewrites = choose(scene, recipe, [call for call in calls if call.node not in kept], first)
    edits = _placed(scene, rewrites, kept)
    for quantity, limit in (("multiply_adds", recipe.budget), ("activations", recipe.memory_budget)):
        if limit is not None and original is not None:
            while over := _over_budget(rewrites, quantity, limit, original):
                kept |= over
                for node in over:
                    del rewrites[node]
                edits = _placed(scene, rewrites, kept)
    passes = scene.passes() if any(rewrite.call.reach is not None for rewrite in rewrites.values()) else ()
    edits = {node: (*own, *passes) for node, own in edits.items()}
    return [_Decision(call, kept.get(call.node), rewrites.get(call.node), edits.get(call.node, ())) for call in calls]


def _find(trace: Trace, recipe: Recipe) -> list[Candidate]:
    """The calls that are sites, each of the first rule that says so."""
    rules = {op: [rule for rule in known if rule.acts(recipe)] for op, known in by_op().items()}
    calls = []
    for node in trace.graph.nodes:
        if node.op == "call_function":
            sites = ((rule, rule.site(of(node), trace)) for rule in rules.get(of(node).name, ()))
            calls += [Candidate(of(node), rule, site) for rule, site in sites if site is not None][:1]
    return calls


def _adaptive(calls: Sequence[Candidate], reaches: Mapping[fx.Node, Reach], recipe: Recipe) -> list[Candidate]:
    """Give every call its lattices."""
    return [
        dataclasses.replace(call, reach=reaches.get(call.node), blurs=not (call.site.smooth or _gathers(call, recipe)))
        for call in calls
    ]


def _gathers(call: Candidate, recipe: Recipe) -> bool:
    """Whether a call moves all samples to channels, and the recipe keeps them."""
    return call.site.whole and recipe.gather == "keep" and recipe.include is None


def _policy(call: Candidate, recipe: Recipe, first: bool, adapts: bool) -> str | None:
    """Return why a call is left alone, None if it is not."""
    path = call.operation.path
    if call.site.reason is not None and not (call.site.smooth and adapts):
        return call.site.reason
    if recipe.exclude is not None and matches(path, recipe.exclude):
        return "The recipe excludes it."
    if recipe.include is not None:
        return None if matches(path, recipe.include) else "The recipe does not include it."
    reason = stem.reason_to_keep(call.site, recipe.stem) if call.rule.stem and first else None
    if reason is None and _gathers(call, recipe) and not adapts:
        reason = "It drops no sample: all of them go to channels. gather='blur' blurs before it."
    return reason


def matches(path: str, globs: Collection[str]) -> bool:
    """Whether a glob matches a module's path, or the path of a module around it.

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


def _placed(
    scene: Scene, rewrites: dict[fx.Node, Rewrite], kept: dict[fx.Node, str]
) -> dict[fx.Node, tuple[Edit, ...]]:
    """Choose an edit for every need of a rewrite: the first one that is right at all invocations of its place.

    Rewrites without such an edit move from ``rewrites`` to ``kept``, with their group.
    """
    while True:
        proposed = Counter(
            edit for rewrite in rewrites.values() for ways in rewrite.needs for edit in dict.fromkeys(ways)
        )
        edits: dict[fx.Node, tuple[Edit, ...]] = {}
        failed: dict[fx.Node, str] = {}
        for node, rewrite in rewrites.items():
            served = [[e for e in ways if proposed[e] == e.invocations(scene.trace)] for ways in rewrite.needs]
            if not all(served):
                failed |= dict.fromkeys(rewrite.group, _unserved(rewrite))
            edits[node] = tuple(ways[0] for ways in served if ways)
        if not failed:
            return edits
        for node, reason in failed.items():
            if rewrites.pop(node, None) is not None:
                kept[node] = reason


def _unserved(rewrite: Rewrite) -> str:
    """Return why no edits carry out a rewrite."""
    if all(rewrite.needs):
        return "Its calls are followed by different operations, and no place for the blur fits all of them."
    return why_nowhere(rewrite.call.node, *(rewrite.tail if isinstance(rewrite, Dense) else ()))


def _over_budget(
    rewrites: Mapping[fx.Node, Rewrite], quantity: str, limit: float, original: Price
) -> dict[fx.Node, str]:
    """Return the group of calls that adds most of a quantity per sampled value, with the reason to keep it.

    Empty if the total is within the limit.
    """
    added = {node: getattr(rewrite.cost.difference, quantity) for node, rewrite in rewrites.items()}
    if sum(added.values()) <= (limit - 1) * getattr(original, quantity):
        return {}
    groups = dict.fromkeys(rewrite.group for rewrite in rewrites.values())
    worst = max(groups, key=lambda group: sum(added[node] / price.samples(node) for node in group))
    extra = Price(**{quantity: sum(added[node] for node in worst)}).describe(quantity)
    reason = (
        f"It adds {extra}, more per sampled value than the converted operations, and the budget is {limit:g} times "
        "the original's."
    )
    return dict.fromkeys(worst, reason)


def _steps(decisions: Sequence[_Decision]) -> tuple[Step, ...]:
    numbers: Counter[tuple[str, str]] = Counter()
    made = {each.call.node: each.edits for each in decisions}
    steps = []
    for each in decisions:
        path, op = each.call.operation.path, each.call.operation.name
        step = Step(
            path,
            numbers[path, op],
            op,
            each.call.rule.name,
            each.call.site.stride,
            "keep",
            reason=each.reason,
            cost=each.cost,
        )
        numbers[path, op] += 1
        if each.rewrite is not None:
            edits = [edit for node in each.rewrite.group for edit in made[node]]
            shown = next((edit for edit in edits if edit.inserted), edits[0])
            form, place = each.rewrite.form, shown.place
            step = dataclasses.replace(step, action="convert", form=form, placement=place, edits=each.edits)
        steps.append(step)
    return tuple(steps)


def _links(decisions: Sequence[_Decision], steps: Sequence[Step]) -> tuple[Link, ...]:
    """Return which calls share a phase: those that reach one lattice, the first of which decides."""
    together: dict[frozenset[tuple[int, float]], list[Call]] = {}
    for each, step in zip(decisions, steps, strict=True):
        if each.rewrite is not None and each.rewrite.call.reach is not None:
            lattices = frozenset(each.rewrite.call.reach.reached)
            together.setdefault(lattices, []).append((step.path, step.op, step.call))
    return tuple(Link("phase", first, tuple(follow)) for first, *follow in together.values())
