"""Choose the rewrite of every site, and list the edits that carry it out."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from torch import fx, nn

from ..edits import BlurModule
from ..layers.resampling import Resampling
from ..layers.substitution import Substitution
from ..recipe import Recipe
from ..tracing.operation import of
from . import stem
from .phases import Reach
from .places import Scene
from .rewrites import BlurFirst, Candidate, Dense, Enlarge, Fused, Replace, Rewrite, Split, Substitute, Ways
from .tail import Tail, find_tail

_TOGETHER = {kind.form: kind for kind in (Dense, Fused)}


def choose(
    scene: Scene, recipe: Recipe, calls: Sequence[Candidate], first: Collection[fx.Node]
) -> dict[fx.Node, Rewrite]:
    """Choose the rewrite of every call.

    Args:
        scene: the model and its traces.
        recipe: the options.
        calls: the calls to convert, in the order of execution.
        first: the stems.
    """
    chooser = _Chooser(scene, recipe, {call.node: call for call in calls}, first)
    rewrites: dict[fx.Node, Rewrite] = {}
    for call in calls:
        if call.node not in rewrites:
            rewrites |= {each.call.node: each for each in chooser.rewrites(call, rewrites)}
    return {call.node: rewrites[call.node] for call in calls}


class _Chooser:
    def __init__(
        self, scene: Scene, recipe: Recipe, calls: Mapping[fx.Node, Candidate], first: Collection[fx.Node]
    ) -> None:
        self.scene = scene
        self.recipe = recipe
        self.calls = calls
        self.first = first
        self.decided: set[tuple[int, float]] = set()

    def rewrites(self, call: Candidate, done: Collection[fx.Node]) -> Sequence[Rewrite]:
        """Return the rewrites of a call and of the calls that are converted together with it."""
        if not call.site.stride:
            layer = call.rule.inserts(call.operation, self.scene.trace, self.recipe)
            ways = tuple(self.scene.substituting(call.node, call.rule.name, layer))
            return [Substitute(call, (), (ways,), (call.node,), _finer(layer, self.recipe))]
        if call.reach is not None:
            return self._adaptive(call, call.reach, done)
        if call.rule.replaces(call.operation.name, call.operation.arguments, self.recipe):
            return [self._replaced(call)]
        if call.rule.together is not None:
            return [self._together(call, call.rule.together)]
        if call.site.before:
            return self._before_gathers(call)
        if call.site.enlarges:
            return [self._enlarged(call)]
        if not call.rule.sinks:
            return self._dense([call], _alone(call))
        return self._sunk(call, done)

    def _adaptive(self, call: Candidate, reach: Reach, done: Collection[fx.Node]) -> Sequence[Rewrite]:
        """Keep one phase of the dense map, or roll to it before a call that is not evaluated densely.

        The first call that reaches a lattice is evaluated densely, to decide on the phase by its output. The others
        follow: without a blur behind them they stay strided.
        """
        if call.site.enlarges:
            return [self._enlarged(call)]
        follows = reach.reached <= self.decided
        self.decided |= reach.reached
        if call.site.before:
            return self._before_gathers(call)
        blurred = max(call.taps(self.recipe)) > 1
        if not call.blurs or self._pads_outside(call) or _several(call.node) or (follows and not blurred):
            return [self._rolled_first(call)]
        if not call.rule.sinks:
            return self._dense([call], _alone(call))
        return self._sunk(call, done, decides=not follows)

    def _pads_outside(self, call: Candidate) -> bool:
        """Whether the input was padded circularly: the dense map is then shorter than the input was."""
        return of(call.node.all_input_nodes[0]).name == "pad" and self.recipe.padding == "circular"

    def _rolled_first(self, call: Candidate) -> Rewrite:
        """Blur and roll before the call, which keeps its stride, and before the padding of its input."""
        stride, needs, first = call.site.stride, [], call.node
        while of(source := first.all_input_nodes[0]).name == "pad" and len(source.users) == 1:
            first = source
        if call.wraps(self.recipe):
            needs.append(tuple(self.scene.dense(call.node, call.rule.name, stride, stride, True, False)))
        needs.append(tuple(self.scene.before(first, _resampling(call, subsamples=False), through_pad=False)))
        return BlurFirst(call, call.taps(self.recipe), tuple(needs), (call.node,))

    def _replaced(self, call: Candidate) -> Rewrite:
        ways = tuple(self.scene.replacing(call.node, call.rule.name, True, _resampling(call, subsamples=True)))
        return Replace(call, call.taps(self.recipe), (ways,), (call.node,))

    def _together(self, call: Candidate, form: str) -> Rewrite:
        """Evaluate the operation and its blur as one; one after the other if no module around can hold the blur."""
        ways = tuple(self.scene.replacing(call.node, call.rule.name, False, _resampling(call, subsamples=True)))
        if not ways:
            return self._dense([call], _alone(call))[0]
        kind = _TOGETHER[form]
        return kind(call, call.taps(self.recipe), (ways,), (call.node,), (call.node,), _ones(call))

    def _enlarged(self, call: Candidate) -> Rewrite:
        stride, needs = call.site.stride, []
        if call.wraps(self.recipe):
            needs.append(tuple(self.scene.dense(call.node, call.rule.name, stride, stride, True, False)))
        needs.append(tuple(self.scene.after(call.node, _resampling(call, subsamples=False))))
        return Enlarge(call, call.taps(self.recipe), tuple(needs), (call.node,))

    def _before_gathers(self, call: Candidate) -> Sequence[Rewrite]:
        """Blur the map that one operation, or several, gather samples from."""
        source = call.node.all_input_nodes[0]
        group = [self.calls[user] for user in source.users if user in self.calls and self.calls[user].site.before]
        users = [user for user in source.users if of(user).name != "size"]
        blur = _resampling(call, subsamples=False)
        ways = tuple(
            sorted(
                self.scene.after(source, blur),
                key=lambda edit: not (isinstance(edit, BlurModule) and edit.where == "before"),
            )
        )
        alike = len(group) == len(users) and len({member.site for member in group}) == 1
        if len(group) < 2 or not alike or not ways:
            ways = tuple(self.scene.before(call.node, blur, through_pad=True))
            return [BlurFirst(call, call.taps(self.recipe), (ways,), (call.node,))]
        nodes = tuple(member.node for member in group)
        return [
            BlurFirst(member, member.taps(self.recipe), (ways,) * (place == 0), nodes, blurs=place == 0)
            for place, member in enumerate(group)
        ]

    def _sunk(self, call: Candidate, done: Collection[fx.Node], decides: bool = False) -> Sequence[Rewrite]:
        """Blur behind the first nonlinearity of the tail; without a nonlinearity, blur first.

        A call that ``decides`` on the phase is evaluated densely in any case.
        """
        same = [
            node
            for node, other in self.calls.items()
            if (other.rule, other.site.stride, other.reach) == (call.rule, call.site.stride, call.reach)
            and node not in done
        ]
        paper = self.recipe.stem == "paper" and self.recipe.include is None
        splits = paper and call.node in self.first and call.reach is None
        tail = find_tail(call.node, len(call.site.stride), [node for node in same if node is not call.node])
        if tail.cut is not None:
            return self._dense([self.calls[root] for root in tail.roots], tail, splits)
        if splits and stem.split(call.site) is not None:
            return self._dense([call], _alone(call), splits)
        if decides:
            return self._dense([call], _alone(call))
        return [self._blurred_first(call)]

    def _dense(self, group: Sequence[Candidate], tail: Tail, splits: bool = False) -> Sequence[Rewrite]:
        """Evaluate a group of calls densely, with one blur behind their common tail."""
        assert tail.cut is not None
        nodes = tuple(call.node for call in group)
        found: list[Rewrite] = []
        for call in group:
            left = (stem.split(call.site) if splits else None) or _ones(call)
            ways = self.scene.dense(
                call.node, call.rule.name, left, call.site.stride, call.wraps(self.recipe), self._by_attribute(call)
            )
            needs: tuple[Ways, ...] = (tuple(ways),)
            dense: tuple[fx.Node, ...] = (call.node,)
            if not found:
                rate = tuple(s // kept for s, kept in zip(call.site.stride, left, strict=True))
                axes = () if tail.axes == tuple(range(-len(rate), 0)) else tail.axes
                blur = _adapting(Resampling(rate, rate, axes), call, "down")
                needs += (tuple(self.scene.after(tail.cut, blur)),)
                dense += tuple(node for node in tail.nodes if node not in tail.roots)
            kind = Dense if max(left) == 1 else Split
            found.append(kind(call, call.taps(self.recipe, left), needs, nodes, dense, left, blurs=not found))
        return found

    def _blurred_first(self, call: Candidate) -> Rewrite:
        """Blur before the call. Before a window of one sample the blur subsamples, which saves computation."""
        stride, needs = call.site.stride, []
        subsamples = max(call.site.kernel) == 1 and not call.rule.pads(call.operation.arguments)
        if subsamples:
            attribute = self._by_attribute(call)
            needs.append(tuple(self.scene.dense(call.node, call.rule.name, _ones(call), stride, False, attribute)))
        elif call.wraps(self.recipe):
            needs.append(tuple(self.scene.dense(call.node, call.rule.name, stride, stride, True, False)))
        needs.append(tuple(self.scene.before(call.node, _resampling(call, subsamples), through_pad=not subsamples)))
        return BlurFirst(call, call.taps(self.recipe), tuple(needs), (call.node,), subsamples)

    def _by_attribute(self, call: Candidate) -> bool:
        """Whether the module's stride attribute is changed, instead of its call."""
        source = of(call.node.all_input_nodes[0])
        if source.name == "pad" and source.frame is not call.operation.frame:
            return False  # padding outside of the module, as TensorFlow's "same", may depend on the stride attribute
        module = self.scene.model.get_submodule(call.operation.path)
        own = _runs_own_forward(module) and call.rule.restrides(module, call.operation.arguments)
        return own and not call.wraps(self.recipe)


def _finer(layer: Substitution | None, recipe: Recipe) -> Fraction:
    """Return how many times the samples a layer evaluates its function on."""
    if layer is None or layer.kind in ("norm", "average"):
        return Fraction(1)
    exact = layer.kind == "polynomial" or (layer.kind == "product" and recipe.filter == "ideal")
    return (Fraction(3, 2) if exact else Fraction(recipe.oversampling)) ** len(layer.axes)


def _runs_own_forward(module: nn.Module) -> bool:
    """Whether the class's forward runs: the instance has no other, or one that names it in ``__wrapped__``."""
    given = module.__dict__.get("forward")
    return given is None or getattr(inspect.unwrap(given), "__func__", None) is type(module).forward


def _ones(call: Candidate) -> tuple[int, ...]:
    return (1,) * len(call.site.stride)


def _alone(call: Candidate) -> Tail:
    """Return an empty tail: the blur follows the call directly."""
    return Tail((call.node,), call.node, (), (call.node,))


def _resampling(call: Candidate, subsamples: bool) -> Resampling:
    stride = call.site.stride if call.blurs else _ones(call)
    blur = Resampling(stride, stride if subsamples else _ones(call), call.site.axes)
    return _adapting(blur, call, "up" if call.site.enlarges else "down" if subsamples else "before")


def _adapting(blur: Resampling, call: Candidate, phase: str) -> Resampling:
    """Add what the layer does with the phase, if the call's phase adapts."""
    if call.reach is None:
        return blur
    reach = call.reach
    return replace(blur, phase=phase, sources=reach.sources, fine=reach.fine, coarse=reach.coarse)


def _several(node: fx.Node) -> bool:
    """Whether the call returns several tensors, as a pool with indices does."""
    return of(node).shape is None
