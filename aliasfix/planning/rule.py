"""What a rule is, and where rules are found."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import extension
from ..errors import AliasfixError
from ..layers.blur import BlurPool
from ..layers.substitution import Substitution
from ..recipe import Recipe
from ..tracing.operation import Operation
from ..tracing.trace import Trace

GROUP = "aliasfix.rules"  # the entry points by which other packages add rules

Function = Callable[..., Any]
Arguments = dict[str, Any]  # of a call, by name


@dataclass(frozen=True)
class Site:
    """A call that a rule is for.

    Args:
        stride: the sampling rate along each spatial axis; empty where the call does not sample.
        kernel: the window's size along each spatial axis, in samples of the input.
        reason: why it is left alone, as a sentence; None where it may be converted.
        enlarges: whether it samples up, not down; the blur then acts at the higher resolution.
        before: whether the operation stays as it is and the blur goes before it, at the higher resolution.
        axes: the spatial axes counted from the end; the last ones if empty.
        whole: whether it drops no sample, alone or with the calls beside it; ``gather="keep"`` leaves it alone then.
        smooth: whether the ``reason`` is that it needs no blur; its phase may adapt all the same.
    """

    stride: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    reason: str | None = None
    enlarges: bool = False
    before: bool = False
    axes: tuple[int, ...] = ()
    whole: bool = False
    smooth: bool = False


@dataclass(frozen=True)
class Case:
    """A named example of a rule: a model and its input.

    ``kept`` is a part of the reason where the rule must leave the model alone, None where it must convert. The
    model takes any spatial size that is a ``multiple``.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 4, 16, 18)
    kept: str | None = None
    multiple: int = 1


class Convolved(nn.Module):
    """A convolution of 4 channels, and a function of what it returns: a model for cases of functions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(4, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of the convolution."""
        return self.function(self.conv(x))


class Rule:
    """How to recognise one kind of operation, and what takes its place.

    Most rules are for sampling: they evaluate the operation densely, for a blur. The sites of a rule for something else
    have no stride, and `substitute` says what takes the place of the call.

    A rule is a class in a file of its own in ``rules/``; the file's name is the rule's name, and its docstring opens
    with the rewrite as an equation. Adding the file is all there is to do. Another package adds a rule by an entry
    point of the group ``aliasfix.rules`` that names the class.
    """

    #: What the rule is for. The laws are chosen by it: only ``sampling`` computes the same with the filter ``delta1``.
    purpose: ClassVar[str] = "sampling"
    #: Names of the functions it recognises, each with the names of its parameters in order.
    signatures: ClassVar[Mapping[str, tuple[str, ...]]]
    #: Torch's modules whose forward is one such function at ``self.stride``.
    modules: ClassVar[tuple[type[nn.Module], ...]] = ()
    #: Whether the blur sinks through a per-position tail to behind the first nonlinearity (else: directly after).
    sinks: ClassVar[bool] = False
    #: Whether the stem policy applies.
    stem: ClassVar[bool] = False
    #: Whether the operation resizes an image: a convolution behind it may still be a stem.
    resizes: ClassVar[bool] = False
    #: The form of a conversion by `blurred`, None where the rule has no such method.
    together: ClassVar[str | None] = None
    #: Whether `replace` is given a layer that enlarges.
    enlarges: ClassVar[bool] = False
    #: The options of a recipe that its cases are converted with.
    options: ClassVar[Mapping[str, Any]] = {}
    cases: ClassVar[tuple[Case, ...]] = ()

    @property
    def name(self) -> str:
        """The name of the file that the rule is in."""
        return type(self).__module__.rpartition(".")[2]

    def bind(self, op: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        names = self.signatures[op]
        return {**{names[index]: args[index] for index in range(min(len(names), len(args)))}, **kwargs}

    def is_layer(self, module: nn.Module) -> bool:
        """Whether the module's forward is one call of such a function on its attributes."""
        own = type(module).forward in {known.forward for known in self.modules}
        return own and getattr(module, "padding_mode", "zeros") == "zeros"

    def attributes(self, op: str, module: nn.Module) -> dict[str, Any]:
        """The arguments of that call but for the input."""
        return {name: getattr(module, name) for name in self.signatures[op] if hasattr(module, name)}

    def acts(self, recipe: Recipe) -> bool:
        """Whether the recipe asks for this rule."""
        return True

    def site(self, call: Operation, trace: Trace) -> Site | None:
        """What the call samples or is, or None if the rule is not for it."""
        raise NotImplementedError

    def dense(self, op: str, func: Function, bound: Arguments, stride: tuple[int, ...], wrap: bool) -> Any:
        """The call evaluated at ``stride`` per axis, its borders wrapped around if ``wrap``."""
        raise NotImplementedError

    def blurred(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """The call evaluated densely, and its blur, at once: cheaper than one after the other."""
        raise NotImplementedError

    def replaces(self, op: str, bound: dict[str, Any], recipe: Recipe) -> bool:
        """Whether the call gives way to a blur: to what `replace` returns."""
        return False

    def replace(self, op: str, func: Function, bound: Arguments, blur: BlurPool) -> Any:
        """What stands in the place of the call, with ``blur`` in it: the same output size."""
        raise NotImplementedError

    def substitute(self, op: str, func: Function, bound: Arguments) -> Any:
        """What takes the place of a call that does not sample: the same output size, on the same lattice."""
        raise NotImplementedError

    def inserts(self, call: Operation, trace: Trace, recipe: Recipe) -> Substitution | None:
        """The layer that takes the place of a call that does not sample; None if `substitute` needs none."""
        return None

    def through(self, op: str, func: Function, bound: Arguments, layer: Any) -> Any:
        """The call evaluated by the layer that `inserts` asked for."""
        raise NotImplementedError

    def replacement_shift(self, bound: dict[str, Any], taps: tuple[int, ...]) -> tuple[float, ...]:
        """How far `replace` moves the output, per axis in samples of the input, by a filter of so many taps."""
        return tuple(0.0 if m % 2 else 0.5 for m in taps)

    def pads(self, bound: dict[str, Any]) -> bool:
        """Whether the call continues its input past the border, which ``padding="circular"`` wraps instead."""
        return pads(bound)

    def restrides(self, module: nn.Module, bound: dict[str, Any]) -> bool:
        """Whether setting ``module.stride`` is all it takes to evaluate the call densely.

        Under ``ceil_mode`` it is not: the last window depends on the stride.
        """
        return type(module).forward in {known.forward for known in self.modules} and not bound.get("ceil_mode")


class Pool(Rule):
    """A rule for windows that keep every s-th of N samples, the last of which pass the border when taken densely."""

    def window(self, op: str, bound: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The kernel, stride and padding of a call, each with one number per axis."""
        axes = spatial_axes(op)
        kernel = per_axis(bound["kernel_size"], axes)
        return kernel, per_axis(bound.get("stride") or kernel, axes), per_axis(bound.get("padding", 0), axes)

    def pads(self, bound: dict[str, Any]) -> bool:
        """With a window of several samples."""
        kernel = bound["kernel_size"]
        return super().pads(bound) or max(kernel if isinstance(kernel, tuple | list) else (kernel,)) > 1


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the file names; those of other packages follow.

    Raises:
        AliasfixError: another package's rule does not load, or has a name that is taken.

    >>> [rule.name for rule in rules()][:3]
    ['activation', 'adaptive_pool', 'average_of_max']
    """
    found = []
    for module in extension.modules("aliasfix.rules"):
        for cls in vars(module).values():
            if isinstance(cls, type) and issubclass(cls, Rule) and cls.__module__ == module.__name__:
                found.append(cls())
    for whose, rule in extension.registered(GROUP, "the rule", make=lambda cls: cls()):
        if not isinstance(rule, Rule):
            raise AliasfixError(f"{whose} makes a {type(rule).__name__}: name a class derived from Rule")
        if rule.name in {known.name for known in found}:
            raise AliasfixError(f"{whose} is in a file named {rule.name}, as another rule is; rename the file")
        found.append(rule)
    return tuple(found)


@functools.cache
def by_name(name: str) -> Rule:
    """The rule in the file ``name``.

    Raises:
        AliasfixError: there is none.
    """
    for rule in rules():
        if rule.name == name:
            return rule
    raise AliasfixError(f"no rule is named {name!r}: install the package that has it, or a later version of aliasfix")


@functools.cache
def by_op() -> dict[str, tuple[Rule, ...]]:
    """The rules for each function name."""
    return {op: tuple(rule for rule in rules() if op in rule.signatures) for op in parameters()}


def parameters() -> dict[str, tuple[str, ...]]:
    """The names of the parameters of every function that a rule recognises."""
    return {op: names for rule in rules() for op, names in rule.signatures.items()}


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """An int or a sequence as one int per axis.

    >>> per_axis(2, 3), per_axis([1, 2], 2)
    ((2, 2, 2), (1, 2))
    """
    if isinstance(value, int):
        return (value,) * axes
    parts = tuple(int(part) for part in value)
    return parts * axes if len(parts) == 1 else parts


def pads(bound: Arguments) -> bool:
    """Whether the ``padding`` of a call is not 0.

    >>> pads({"padding": (0, 1)}), pads({"padding": "valid"}), pads({})
    (True, False, False)
    """
    padding = bound.get("padding", 0)
    if isinstance(padding, str):
        return padding == "same"
    return any(padding if isinstance(padding, tuple | list) else (padding,))


def spatial_axes(op: str) -> int:
    """How many spatial axes an operation named ``…1d``, ``…2d`` or ``…3d`` has.

    >>> spatial_axes("max_pool2d"), spatial_axes("max_pool1d_with_indices")
    (2, 1)
    """
    return 1 if op.count("1d") else 2 if op.count("2d") else 3


def wrap_input(
    x: Tensor,
    padding: Sequence[int],
    reach: Sequence[int] = (),
    stride: Sequence[int] = (),
    overhang: Sequence[int] = (),
) -> Tensor:
    """``x`` continued around its borders by an operation's own padding.

    Windows of ``reach`` that keep every ``stride``-th sample of a whole period end short of it when evaluated densely:
    for them ``x`` is continued to the right as far as they miss, as it is for an ``overhang`` of ``ceil_mode``.

    >>> wrap_input(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [0], [2], [2])
    tensor([[[1., 2., 3., 4., 1.]]])
    """
    flat = []
    for axis in reversed(range(len(padding))):
        size, before = x.shape[axis - len(padding)], padding[axis]
        short = 0
        if reach:
            dense = size + 2 * before - reach[axis] + 1
            wanted = dense + (overhang[axis] if overhang else 0)
            short = max(0, min(size, -(-wanted // stride[axis]) * stride[axis]) - dense)
        flat += [before, before + short]
    return torch.nn.functional.pad(x, flat, mode="circular") if any(flat) else x
