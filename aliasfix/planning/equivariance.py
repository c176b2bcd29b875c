"""Reason about a recorded pass: which operations keep a converted model from commuting with shifts.

A tensor follows the shifts of the input along an axis if its samples cover a whole period of the input there. Every
operation must keep that, or reduce the axis as a whole; what does not is a blocker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from ..filters import IDEAL
from ..layers.substitution import Substitution
from ..recipe import Recipe
from ..tracing.operation import Operation, of
from ..tracing.trace import Trace
from . import lattice
from .plan import Step
from .provenance import is_spatial, spatial
from .rewrites import Candidate
from .rule import pads
from .tail import is_nonlinear, kind

_REDUCES = {
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "var_mean", "std_mean", "norm", "logsumexp", "prod"),
    *(f"{pool}_pool{n}d" for pool in ("adaptive_avg", "adaptive_max", "avg", "max", "lp") for n in (1, 2, 3)),
    *("adaptive_max_pool2d_with_indices", "global_avg_pool2d", "any", "all", "median", "nanmean", "vector_norm"),
}
_REORDERS = {"flip", "fliplr", "flipud", "rot90"}
_NOT_DATA = {"size", "held", "part"}


@dataclass(frozen=True)
class Blocker:
    """An operation that does not commute with shifts.

    Args:
        path: the module it is called in.
        op: the function's name.
        why: what it does, as a sentence.
        remedy: what to try; empty if there is nothing.
    """

    path: str
    op: str
    why: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" Try {self.remedy}." if self.remedy else ""
        return f"{self.path or 'the model'}: {self.op}: {self.why}{remedy}"


@dataclass(frozen=True)
class Reasoning:
    """What is concluded from a recorded pass.

    Args:
        total: the largest total stride along each axis of the input.
        blockers: what does not commute with shifts, in the order of execution.
        outputs: the lattice of each axis of the first output, as its total stride; None where the axis is not spatial.
    """

    total: tuple[int, ...]
    blockers: tuple[Blocker, ...]
    outputs: tuple[float | None, ...]


Live = dict[int, float]  # the total stride along each axis of the input that a tensor follows


def reason(
    trace: Trace, recipe: Recipe, sites: Mapping[fx.Node, tuple[Candidate, Step]], adaptive: set[fx.Node]
) -> Reasoning:
    """Find what keeps a conversion from commuting with integer shifts.

    Args:
        trace: a pass of the original.
        recipe: the options of the conversion.
        sites: the calls of the plan, each with its step.
        adaptive: those of them whose phase adapts.
    """
    sampling = {node: call.site for node, (call, _) in sites.items() if call.site.stride}
    places = lattice.positions(trace, {}, sampling)
    first = next(node for node in trace.graph.nodes if node.op == "placeholder" and of(node).shape)
    period = of(first).sizes[2:]
    judge = _Judge(trace, recipe, sites, adaptive, places, period)
    blockers = [found for node in trace.graph.nodes for found in judge.blockers(node)]
    strides = [place for position in places.values() for place in position if place is not None]
    total = tuple(max([round(p.stride) for p in strides if p.source == axis] + [1]) for axis in range(len(period)))
    size = [
        Blocker(
            "", "input", f"Its size {n} is no multiple of the total stride {t}.", f"sizes that are multiples of {t}"
        )
        for n, t in zip(period, total, strict=True)
        if n % t
    ]
    return Reasoning(total, tuple(dict.fromkeys([*size, *blockers])), judge.output())


def is_alias_free(recipe: Recipe) -> bool:
    """Whether every operation that is converted by the recipe folds nothing."""
    return recipe.filter == IDEAL and recipe.phase == "fixed"


@dataclass
class _Judge:
    trace: Trace
    recipe: Recipe
    sites: Mapping[fx.Node, tuple[Candidate, Step]]
    adaptive: set[fx.Node]
    places: Mapping[fx.Node, lattice.Position]
    period: tuple[int, ...]

    def live(self, node: fx.Node) -> Live:
        """The axes of the input that a tensor follows: it has samples of a whole period along them."""
        if of(node).name == "pad" and self._border(node) is None:
            return self.live(node.all_input_nodes[0])  # what pads circularly goes on as it was
        shape, found = of(node).shape, {}
        for axis, place in zip(range(-len(shape or ()), 0), self.places[node] if shape else (), strict=False):
            if place is None or not shape or shape[axis] == 1 or place.source >= len(self.period):
                continue
            if is_spatial(self.trace, node, axis) and shape[axis] * place.stride == self.period[place.source]:
                found[place.source] = place.stride
        return found

    def output(self) -> tuple[float | None, ...]:
        """The total strides of the axes of the first output."""
        result = next(node for node in self.trace.graph.nodes if node.op == "output")
        tensors = [node for node in result.all_input_nodes if of(node).shape is not None]
        if not tensors:
            return ()
        axes = range(-len(of(tensors[0]).sizes), 0)
        places = zip(axes, self.places[tensors[0]], strict=True)
        return tuple(p.stride if p is not None and is_spatial(self.trace, tensors[0], a) else None for a, p in places)

    def blockers(self, node: fx.Node) -> list[Blocker]:
        """What keeps this call from following the shifts of its operands."""
        operation = of(node)
        if node.op != "call_function" or not operation.variable or operation.name in _NOT_DATA:
            return []
        operands = [parent for parent in node.all_input_nodes if of(parent).variable and of(parent).shape]
        lives = [self.live(parent) for parent in operands]
        before: Live = {source: stride for live in lives for source, stride in live.items()}
        if not before:
            return []
        found = [self._sampled(node), self._border(node), self._added(node), self._folds(node, lives)]
        if kind(operation.name) in _REORDERS:
            found.append(self._blocker(operation, "It reverses the order of the samples."))
        found.append(self._lost(node, before, any(each is not None for each in found)))
        return [each for each in found if each is not None][:1]

    def _sampled(self, node: fx.Node) -> Blocker | None:
        """A call that samples at a fixed phase."""
        if node not in self.sites or not self.sites[node][0].site.stride or node in self.adaptive:
            return None
        step = self.sites[node][1]
        if step.action == "convert" and is_alias_free(self.recipe):
            return None  # what folds is gone, so that every phase says the same
        if of(node).shape and all(of(node).sizes[axis] == 1 for axis in range(-len(step.stride), 0)):
            return None  # one sample of the whole map
        why = "It keeps the samples that the original keeps, wherever the image lies."
        if self.recipe.phase == "fixed":
            return self._blocker(of(node), why, "phase='adaptive'")
        reason = step.reason or "Its lattice is reached by a call of fixed phase, too, or is not known."
        stem = "stem='whole'" if "stem" in reason or "patch embedding" in reason else ""
        return self._blocker(of(node), f"{why} {reason}", stem)

    def _folds(self, node: fx.Node, lives: Sequence[Live]) -> Blocker | None:
        """A nonlinearity that makes frequencies which fold, where the recipe asks for none."""
        asked = is_alias_free(self.recipe) or self.recipe.activation != "keep"
        if not asked or self.recipe.phase != "fixed" or (node in self.sites and self._is_exact(node)):
            return None
        op = kind(of(node).name)
        product = op in ("mul", "multiply", "div", "true_divide", "divide") and sum(map(bool, lives)) > 1
        if "max_pool" in op and "adaptive" not in op:
            return self._blocker(of(node), "A maximum makes frequencies that fold.", "pool='average'")
        if op == "layer_norm":
            return self._blocker(of(node), "It divides each position by a number of its own.", "norm='alias-free'")
        if not (product or is_nonlinear(op)) or not self.live(node):
            return None
        filtered = node in self.sites and self.sites[node][1].action == "convert"
        why = "It is filtered, but a part of what it makes still folds." if filtered else "It makes what folds."
        return self._blocker(of(node), why, "activation='polynomial'")

    def _is_exact(self, node: fx.Node) -> bool:
        """Whether what takes the place of a nonlinearity makes nothing that folds."""
        candidate, step = self.sites[node]
        if step.action != "convert":
            return False
        layers = [edit.inserted for edit in step.edits if isinstance(edit.inserted, Substitution)]
        if not layers:  # a max pool that samples
            return candidate.rule.replaces(of(node).name, of(node).arguments, self.recipe)
        return all(each.kind in ("polynomial", "product", "norm", "average") for each in layers) and (
            is_alias_free(self.recipe) or self.recipe.activation == "polynomial"
        )

    def _border(self, node: fx.Node) -> Blocker | None:
        """A window that sees something else behind the border than on the other side."""
        bound, op = of(node).arguments, of(node).name
        if op not in lattice.WINDOWS and op != "pad" and "conv_transpose" not in op:
            return None
        step = self.sites[node][1] if node in self.sites else None
        if self.recipe.padding == "circular" and step is not None and step.action == "convert":
            return None
        reaches = any(bound["pad"]) if op == "pad" else pads(bound)
        if not reaches or bound.get("mode") == "circular":
            return None
        return self._blocker(of(node), "It continues the map past its border by something else.", "padding='circular'")

    def _added(self, node: fx.Node) -> Blocker | None:
        """A constant that differs from position to position, as an embedding of positions does."""
        shape = of(node).shape
        if shape is None or kind(of(node).name) not in ("add", "sub", "mul", "div", "cat", "where"):
            return None
        axes = spatial(self.trace, node, longer_than=1)
        for parent in node.all_input_nodes:
            sizes = of(parent).shape
            if sizes and not of(parent).variable and any(-axis <= len(sizes) and sizes[axis] > 1 for axis in axes):
                return self._blocker(of(node), "It adds a constant that differs from position to position.")
        return None

    def _lost(self, node: fx.Node, before: Live, explained: bool) -> Blocker | None:
        """A call whose result does not follow the shifts, or only at some sizes."""
        operation = of(node)
        if operation.shape is None or explained:
            return None
        after = self.live(node)
        lost = set(before) - set(after)
        if not lost:
            return None
        places = [place for place in self.places[node] if place is not None and place.source in lost]
        if kind(operation.name) in _REDUCES and not spatial(self.trace, node, longer_than=1):
            return None
        if operation.name in ("reshape", "view", "flatten"):
            return self._blocker(
                operation, "It makes features, tokens or windows of positions.", "a head that averages over the map"
            )
        if operation.name in lattice.WINDOWS or "pool" in operation.name:
            return self._blocker(
                operation, "Its windows reach less far, or farther, than the map, which changes its size."
            )
        if places:
            return self._blocker(operation, "The sizes of its input and its result do not divide.", "other input sizes")
        return self._blocker(operation, "It does not act alike at all positions, or is not known to.")

    def _blocker(self, operation: Operation, why: str, remedy: str = "") -> Blocker:
        return Blocker(operation.path, operation.name, why, remedy)
