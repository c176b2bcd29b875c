"""Choose the form of every conversion and the ways to carry it out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from .. import filters
from ..edits import BlurModule, Edit
from ..layers.resampling import Resampling
from ..recipe import Recipe
from ..tracing.operation import of
from . import stem
from .places import Scene
from .rule import Rule, Site
from .tail import Tail, find_tail


@dataclass
class Call:
    """A call that samples, on its way to a step.

    Args:
        needs: what has to be done, each by one of several edits.
        shared: the calls that stand or fall together, this one included.
        shift: how far the blur moves the output, per axis in samples of the call's input.
        left: the stride that stays in the call, per axis.
        tail: what is evaluated on the dense map with it, itself first.
        blurs: whether a blur is for it, and not for another call that shares its own.
        subsamples: whether a blur before it subsamples.
        replaced: whether the blur takes its place.
    """

    node: fx.Node
    rule: Rule
    site: Site
    bound: dict[str, Any]
    reason: str | None = None
    form: str | None = None
    needs: list[list[Edit]] = field(default_factory=list)
    shared: "list[Call]" = field(default_factory=list)
    shift: tuple[float, ...] = ()
    edits: tuple[Edit, ...] = ()
    left: tuple[int, ...] = ()
    tail: tuple[fx.Node, ...] = ()
    blurs: bool = True
    subsamples: bool = False
    replaced: bool = False


def choose(scene: Scene, recipe: Recipe, calls: Sequence[Call], first: Collection[fx.Node]) -> None:
    """Set form, needs and shift of every call without a reason to be kept.

    Args:
        scene: the model and what was recorded of it.
        recipe: the user's.
        calls: in the order of execution.
        first: the stems among them.
    """
    going = {call.node: call for call in calls if call.reason is None}
    done: set[fx.Node] = set()
    for call in going.values():
        if call.node in done:
            continue
        done.add(call.node)
        if call.rule.replaces(of(call.node).name, call.bound, recipe):
            _replace(scene, recipe, call)
        elif call.rule.together is not None:
            _together(scene, recipe, call, call.rule.together)
        elif call.site.before:
            done |= _before_gather(scene, recipe, call, going)
        elif call.site.enlarges:
            _enlarge(scene, recipe, call)
        elif not call.rule.sinks:
            _behind(scene, recipe, call)
        else:
            done |= _sink(scene, recipe, call, going, done, splits=call.node in first and recipe.stem == "paper")


def _ones(stride: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * len(stride)


def _blur(call: Call, subsamples: bool) -> Resampling:
    stride = call.site.stride
    return Resampling(stride, stride if subsamples else _ones(stride), call.site.axes)


def _shift(recipe: Recipe, call: Call, step: tuple[int, ...] | None = None) -> tuple[float, ...]:
    """How far the filter moves the lattice: half a sample for an even one, at a step of so many input samples."""
    rates = call.site.stride if step is None else [s // n for s, n in zip(call.site.stride, step, strict=True)]
    even = [len(filters.taps(recipe.filter, rate)) % 2 == 0 for rate in rates]
    return tuple(0.5 * n if e else 0.0 for e, n in zip(even, step or _ones(call.site.stride), strict=True))


def _replace(scene: Scene, recipe: Recipe, call: Call) -> None:
    taps = tuple(len(filters.taps(recipe.filter, rate)) for rate in call.site.stride)
    call.form, call.left, call.replaced = "dense", _ones(call.site.stride), True
    call.shift = call.rule.replacement_shift(call.bound, taps)
    call.needs = [list(scene.replacing(call.node, call.rule.name, True, _blur(call, subsamples=True)))]


def _together(scene: Scene, recipe: Recipe, call: Call, form: str) -> None:
    ways = list(scene.replacing(call.node, call.rule.name, False, _blur(call, subsamples=True)))
    if not ways:  # nothing around the call can be rewritten and host a blur
        _behind(scene, recipe, call)
        return
    call.form, call.left, call.shift, call.needs = form, _ones(call.site.stride), _shift(recipe, call), [ways]


def _behind(scene: Scene, recipe: Recipe, call: Call) -> None:
    """Blur the dense call directly after it."""
    _dense(scene, recipe, [call], Tail((call.node,), call.node, (), (call.node,)), splits=False)


def _enlarge(scene: Scene, recipe: Recipe, call: Call) -> None:
    stride = call.site.stride
    call.form = "dense"
    call.shift = tuple(s / rate for s, rate in zip(_shift(recipe, call), stride, strict=True))
    if _wraps(recipe, call):
        call.needs.append(list(scene.dense(call.node, call.rule.name, stride, stride, True, False)))
    call.needs.append(list(scene.after(call.node, _blur(call, subsamples=False))))


def _before_gather(scene: Scene, recipe: Recipe, call: Call, going: dict[fx.Node, Call]) -> set[fx.Node]:
    """Blur what one operation, or several that share it, gathers samples from."""
    source = call.node.all_input_nodes[0]
    group = [going[user] for user in source.users if user in going and going[user].site.before]
    users = [user for user in source.users if of(user).name != "size"]
    together = len(group) > 1 and len(group) == len(users) and len({c.site for c in group}) == 1
    blur = _blur(call, subsamples=False)
    for member in group if together else [call]:
        member.form, member.shift = "blur-first", _shift(recipe, call)
        member.shared = group if together else [call]
        member.blurs = not together or member is group[0]
    if not together:
        call.needs = [list(scene.before(call.node, blur, through_pad=True))]
        return set()
    ways = list(scene.after(source, blur))
    ways.sort(key=lambda edit: not (isinstance(edit, BlurModule) and edit.where == "before"))
    group[0].needs = [ways]
    return {member.node for member in group}


def _sink(
    scene: Scene,
    recipe: Recipe,
    call: Call,
    going: dict[fx.Node, Call],
    done: Collection[fx.Node],
    splits: bool,
) -> set[fx.Node]:
    """Follow the tail to behind its nonlinearity; blur first where there is none."""
    same = [n for n, other in going.items() if other.rule is call.rule and other.site.stride == call.site.stride]
    tail = find_tail(call.node, len(call.site.stride), [node for node in same if node not in done])
    if tail.cut is None and splits and recipe.include is None and stem.split(call.site) is not None:
        _dense(scene, recipe, [call], Tail((call.node,), call.node, (), (call.node,)), splits)
        return set()
    if tail.cut is None:
        _blur_first(scene, recipe, call)
        return set()
    _dense(scene, recipe, [going[root] for root in tail.roots], tail, splits)
    return set(tail.roots)


def _by_attribute(scene: Scene, recipe: Recipe, call: Call) -> bool:
    """Whether the stride of a module is changed; else its call is rewritten."""
    source = call.node.all_input_nodes[0]
    if of(source).name == "pad" and of(source).frame is not of(call.node).frame:
        return False  # padding from outside of the module, as TensorFlow's "same", may be computed from its stride
    module = scene.model.get_submodule(of(call.node).path)
    return call.rule.restrides(module, call.bound) and not _wraps(recipe, call)


def _wraps(recipe: Recipe, call: Call) -> bool:
    return recipe.padding == "circular" and call.rule.pads(call.bound)


def _dense(scene: Scene, recipe: Recipe, group: Sequence[Call], tail: Tail, splits: bool) -> None:
    assert tail.cut is not None
    for call in group:
        left = (stem.split(call.site) if splits and recipe.include is None else None) or _ones(call.site.stride)
        rate = tuple(s // kept for s, kept in zip(call.site.stride, left, strict=True))
        call.form = "dense" if max(left) == 1 else "split"
        call.shift = _shift(recipe, call, left)
        attribute, wraps = _by_attribute(scene, recipe, call), _wraps(recipe, call)
        call.needs = [list(scene.dense(call.node, call.rule.name, left, call.site.stride, wraps, attribute))]
        call.shared, call.left = list(group), left
        call.tail, call.blurs = (call.node,), False
    group[0].tail, group[0].blurs = (group[0].node, *(n for n in tail.nodes if n not in tail.roots)), True
    last = tuple(range(-len(rate), 0))
    group[0].needs.append(list(scene.after(tail.cut, Resampling(rate, rate, () if tail.axes == last else tail.axes))))


def _blur_first(scene: Scene, recipe: Recipe, call: Call) -> None:
    stride = call.site.stride
    call.form, call.shift = "blur-first", _shift(recipe, call)
    if max(call.site.kernel) == 1 and not call.rule.pads(call.bound):
        attribute = _by_attribute(scene, recipe, call)
        call.subsamples = True
        dense = scene.dense(call.node, call.rule.name, _ones(stride), stride, False, attribute)
        call.needs = [list(dense), list(scene.before(call.node, _blur(call, True), through_pad=False))]
        return
    call.needs = [list(scene.before(call.node, _blur(call, False), through_pad=True))]
    if _wraps(recipe, call):
        call.needs.insert(0, list(scene.dense(call.node, call.rule.name, stride, stride, True, False)))
