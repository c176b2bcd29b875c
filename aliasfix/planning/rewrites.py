"""The rewrites of a site: one class per form, with its edits, its shift of the lattice and its price."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from torch import fx

from .. import filters
from ..edits import Edit
from ..recipe import Recipe
from ..tracing.operation import Operation, of
from . import price
from .cost import Cost, Price
from .phases import Reach
from .rule import Rule, Site, per_axis

Ways = tuple[Edit, ...]  # edits that do the same, of which one is made


@dataclass(frozen=True, eq=False)
class Candidate:
    """A call that a rule recognises as a site.

    Args:
        operation: the call.
        rule: the rule.
        site: what the rule says of it.
        reach: its lattices where its phase adapts, else None.
        blurs: whether it is blurred; else only its phase adapts.
    """

    operation: Operation
    rule: Rule
    site: Site
    reach: Reach | None = None
    blurs: bool = True

    @property
    def node(self) -> fx.Node:
        """The node of the call."""
        return self.operation.node

    def wraps(self, recipe: Recipe) -> bool:
        """Whether the recipe wraps the borders of the operation itself."""
        reaches = self.reach is not None and max(self.site.kernel, default=1) > 1
        return recipe.padding == "circular" and (reaches or self.rule.pads(self.operation.arguments))

    def taps(self, recipe: Recipe, left: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the filter's taps along each axis if the stride ``left`` stays in the call."""
        rates = [s // kept for s, kept in zip(self.site.stride, left or (1,) * len(self.site.stride), strict=True)]
        return tuple(filters.work(recipe.filter, rate) if self.blurs else 1 for rate in rates)


@dataclass(frozen=True, eq=False)
class Rewrite(ABC):
    """The rewrite of one call.

    Args:
        call: the call.
        taps: the number of the filter's taps, per axis.
        needs: the changes to make, each by one of several edits; empty if another call of the group has them.
        group: the calls that are converted together or not at all, including this one.
    """

    form: ClassVar[str]

    call: Candidate
    taps: tuple[int, ...]
    needs: tuple[Ways, ...]
    group: tuple[fx.Node, ...]

    @property
    def shift(self) -> tuple[float, ...]:
        """How far the filter moves the output, per axis in samples of the call's input: half a sample if even."""
        return tuple(0.0 if taps % 2 else 0.5 for taps in self.taps)

    @property
    def before(self) -> Price:
        """The price before the conversion."""
        return price.of_node(self.call.node)

    @property
    @abstractmethod
    def after(self) -> Price:
        """The price after the conversion."""

    @property
    def cost(self) -> Cost:
        """Both prices."""
        return Cost(self.before, self.after)

    def blur(self, node: fx.Node, read: Fraction = Fraction(1), kept: Fraction = Fraction(1)) -> Price:
        """Return the price of a blur from ``read`` times to ``kept`` times the samples that ``node`` returns."""
        return price.of_blur(node, math.prod(self.taps), read, kept)


@dataclass(frozen=True, eq=False)
class Dense(Rewrite):
    """Subsample_s ∘ Blur_m ∘ tail ∘ op: the operation and its tail are evaluated on the dense map, then blurred.

    Args:
        tail: the operations that are evaluated on the dense map, the call first.
        left: the stride that stays in the call, per axis.
        blurs: whether this call of the group has the blur.
    """

    form = "dense"

    tail: tuple[fx.Node, ...]
    left: tuple[int, ...]
    blurs: bool = True

    @property
    def shift(self) -> tuple[float, ...]:
        """Half a sample of the blurred map, whose samples are as far apart as the stride that is left."""
        return tuple(half * step for half, step in zip(super().shift, self.left, strict=True))

    @property
    def before(self) -> Price:
        """The price of the call and its tail."""
        return sum((price.of_node(node) for node in self.tail), Price())

    @property
    def after(self) -> Price:
        """The price on the dense map, and of the blur. A pool's indices still come from the strided pool."""
        node = self.call.node
        out = price.result(node)
        denser = self._density(out)
        if out is not node:
            made, read = int(of(out).bytes * denser), of(node.all_input_nodes[0]).bytes
            return self.before + Price(0, made, read + made) + self.blur(out, denser)
        after = sum((price.of_node(each, denser, self.tail) for each in self.tail), Price())
        return after + (self.blur(self.tail[-1], denser) if self.blurs else Price())

    def _density(self, out: fx.Node) -> Fraction:
        """Return the ratio of the samples of the dense map to those of the strided map."""
        site = self.call.site
        axes = len(site.stride)
        where = site.axes or tuple(range(-axes, 0))
        sources, sizes = ([of(node).sizes[axis] for axis in where] for node in (self.call.node.all_input_nodes[0], out))
        padding = self.call.operation.arguments.get("padding", 0)
        pads = per_axis(padding, axes) if not isinstance(padding, str) else (0,) * axes
        windows = zip(sources, sizes, site.stride, site.kernel or (1,) * axes, pads, self.left, strict=True)
        lengths = [max((n + 2 * p - k) // left + 1, (m - 1) * (s // left) + 1) for n, m, s, k, p, left in windows]
        return price.ratio(math.prod(lengths), math.prod(sizes))


class Split(Dense):
    """Subsample_2 ∘ Blur_m ∘ Conv_{k,2}: an overlapping stem keeps part of its stride."""

    form = "split"


class Fused(Dense):
    """As dense, for a linear operation, which is evaluated together with its blur."""

    form = "fused"


@dataclass(frozen=True, eq=False)
class Substitute(Rewrite):
    """A substitute for an operation that does not sample.

    Args:
        finer: how many times the samples it is evaluated on, between a way up and a way down; 1 at the same price.
    """

    form = "substitute"

    finer: Fraction = Fraction(1)

    @property
    def after(self) -> Price:
        """The price of the operation on the finer grid, and of both ways."""
        if self.finer == 1:
            return self.before
        work = 2 * filters.work(filters.IDEAL)  # multiply-adds of both ways for each sample of the finer grid
        return price.of_node(self.call.node, self.finer) + price.of_blur(self.call.node, work, Fraction(1), self.finer)


class Replace(Rewrite):
    """Subsample_s ∘ Blur_m: the blur takes the place of the operation."""

    form = "dense"

    @property
    def shift(self) -> tuple[float, ...]:
        """The shift that the rule states."""
        return self.call.rule.replacement_shift(self.call.operation.arguments, self.taps)

    @property
    def after(self) -> Price:
        """The price of a blur of the input, or of the enlarged map."""
        node = self.call.node
        if self.call.site.enlarges:
            return self.before + self.blur(node)
        return self.blur(node, price.ratio(of(node.all_input_nodes[0]).bytes, of(node).bytes))


class Enlarge(Rewrite):
    """Blur_m ∘ op: an operation that samples up is blurred at the high resolution."""

    form = "dense"

    @property
    def shift(self) -> tuple[float, ...]:
        """Half a sample of the output."""
        return tuple(half / rate for half, rate in zip(super().shift, self.call.site.stride, strict=True))

    @property
    def after(self) -> Price:
        """The price of the operation and of the blur of its result."""
        return self.before + self.blur(self.call.node)


@dataclass(frozen=True, eq=False)
class BlurFirst(Rewrite):
    """op ∘ Blur_m: the blur goes before the operation, which keeps its stride unless the blur ``subsamples``."""

    form = "blur-first"

    subsamples: bool = False
    blurs: bool = True

    @property
    def after(self) -> Price:
        """The price of the blur of the input, and of the operation."""
        if not self.blurs:
            return self.before
        node, source = self.call.node, self.call.node.all_input_nodes[0]
        if not self.subsamples:
            return self.before + self.blur(source)
        axes = len(self.call.site.stride)
        kept = price.ratio(math.prod(of(node).sizes[-axes:]), math.prod(of(source).sizes[-axes:]))
        saved = int(of(source).bytes * (1 - kept))
        return self.before + self.blur(source, kept=kept) + Price(0, 0, -saved)
