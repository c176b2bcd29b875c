"""What a conversion guarantees: reasons and a measurement, side by side."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import surgery
from ..conversion import unblurred
from ..errors import AliasfixError
from ..planning import planner
from ..planning.equivariance import Blocker, Reasoning, is_alias_free, reason
from ..planning.rule import parameters
from ..running import evaluating
from ..text.printing import Tabular
from ..tracing.example import traces
from ..tracing.nested import map_tensors, tensors

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick

BOUND = {torch.float64: 1e-9, torch.float32: 1e-3}
_SHIFTS = 4


@dataclass(frozen=True)
class Guarantee(Tabular):
    """What a converted model guarantees under shifts of its input.

    Args:
        exact: whether no integer shift changes the output, or for an output with positions, whether it moves along.
        fractional: whether it is exact for shifts by fractions of a pixel, too, of inputs without a Nyquist frequency.
        total_stride: the largest total stride along each axis of the input.
        blockers: what keeps it from that.
        change: the largest change that was measured over random integer shifts, relative to the scale of the output.
        change_in_float64: the same in float64, None if the model does not run in it.
        dtype: of ``change``.
    """

    exact: bool
    total_stride: tuple[int, ...]
    blockers: tuple[Blocker, ...]
    change: float
    change_in_float64: float | None
    dtype: str
    fractional: bool = False

    @property
    def sizes(self) -> str:
        """The sizes of the input that it holds for, in words."""
        return " x ".join(f"multiples of {total}" if total > 1 else "any" for total in self.total_stride)

    @property
    def agrees(self) -> bool:
        """Whether what was measured is what the reasons say."""
        dtype = torch.float32 if self.change_in_float64 is None else torch.float64
        measured = self.change if self.change_in_float64 is None else self.change_in_float64
        return measured <= BOUND[dtype] or not self.exact

    @property
    def verdict(self) -> str:
        """The guarantee in one sentence."""
        if not self.agrees:
            return (
                f"the plan says that integer shifts change nothing, and a change of {self.change:.1e} of the scale was "
                f"measured: please report this"
            )
        if self.exact and self.fractional:
            return f"exact for every circular shift, by fractions of a pixel, too, of inputs of sizes {self.sizes}"
        if self.exact:
            return f"exact for integer circular shifts, of inputs of sizes {self.sizes}"
        what = f"{len(self.blockers)} operations do not commute with shifts"
        return f"approximate: {what}; integer shifts changed the output by up to {self.change:.1e} of its scale"

    def to_json(self) -> str:
        """The guarantee as JSON."""
        more = {"agrees": self.agrees, "sizes": self.sizes, "verdict": self.verdict}
        return json.dumps(dataclasses.asdict(self) | more)

    def __rich__(self) -> "Table":
        from rich.table import Table

        also = "" if self.change_in_float64 is None else f", {self.change_in_float64:.1e} in float64"
        seen = (
            f"largest change over {_SHIFTS} random integer shifts: {self.change:.1e} of the scale in {self.dtype}{also}"
        )
        caption = "\n".join([self.verdict, seen, f"total stride {' x '.join(map(str, self.total_stride))}"])
        table = Table(caption=caption, caption_justify="left", box=None, pad_edge=False)
        for column in ("path", "operation", "what does not commute with shifts", "try"):
            table.add_column(column, overflow="fold")
        for blocker in self.blockers:
            table.add_row(blocker.path or "(model)", blocker.op, blocker.why, blocker.remedy)
        return table


@torch.inference_mode(False)
def guarantee(model: nn.Module, example_input: Any = None) -> Guarantee:
    """Say what a converted model guarantees under shifts, why, and what was measured.

    Args:
        model: a converted model; left as it is.
        example_input: as for `aliasfix.convert`. The guarantee is about inputs of this size, and is measured with it.

    Raises:
        AliasfixError: the model is not a converted one, or does not run on the input.

    >>> import aliasfix
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    >>> x = torch.rand(2, 3, 16, 16)
    >>> guarantee(aliasfix.convert(net, method="aps", example_input=x), x).verdict
    'exact for integer circular shifts, of inputs of sizes multiples of 2 x multiples of 2'
    """
    plan = surgery.executed(model)
    if plan is None:
        raise AliasfixError("guarantee takes a converted model: convert it first")
    (evaluation, _), _, (args, kwargs) = traces(unblurred(model), example_input, parameters())
    sites = planner.matched(plan, evaluation)
    shared = {call for link in plan.links if link.shares == "phase" for call in (link.decides, *link.follow)}
    adaptive = {node for node, (_, step) in sites.items() if (step.path, step.op, step.call) in shared}
    reasons = reason(evaluation, plan.recipe, sites, adaptive)
    dtype = next(tensors((args, kwargs))).dtype
    with evaluating(model):
        own = _change(model, args, kwargs, reasons)
        exact = own if dtype == torch.float64 else _change_in_float64(model, args, kwargs, reasons)
    name, fractional = str(dtype).removeprefix("torch."), not reasons.blockers and is_alias_free(plan.recipe)
    return Guarantee(not reasons.blockers, reasons.total, reasons.blockers, own, exact, name, fractional)


def _change_in_float64(model: nn.Module, args: Any, kwargs: Any, reasons: Reasoning) -> float | None:
    """Return the same as `_change` for a copy in float64; None if a part computes in float32 whatever its input."""
    args, kwargs = map_tensors((args, kwargs), lambda t: t.double() if t.is_floating_point() else t)
    try:
        return _change(copy.deepcopy(model).double(), args, kwargs, reasons)
    except RuntimeError:
        return None


def _change(model: nn.Module, args: Any, kwargs: Any, reasons: Reasoning) -> float:
    """Return the largest relative change of the outputs over random shifts of a random input."""
    generator = torch.Generator().manual_seed(0)
    axes = len(reasons.total)

    def drawn(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() != axes + 2:
            return x
        x = x.expand(max(2, len(x)), *x.shape[1:]) if len(x) == 1 else x
        return torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x)

    args, kwargs = map_tensors((args, kwargs), drawn)
    sizes = next(t.shape[2:] for t in tensors((args, kwargs)) if t.dim() == axes + 2)
    with torch.no_grad():
        before = next(tensors(model(*args, **kwargs)))
        changes = []
        for _ in range(_SHIFTS):
            shift = [int(torch.randint(n, (), generator=generator)) for n in sizes]
            after = next(tensors(_call(model, args, kwargs, shift)))
            changes.append(_difference(before, after, shift, reasons.outputs))
    return torch.stack(changes).max().item() / (before.abs().max().item() or 1.0)  # nan if one is


def _call(model: nn.Module, args: Any, kwargs: Any, shift: Sequence[int]) -> Any:
    """Call the model with its images shifted circularly."""
    axes = tuple(range(2, len(shift) + 2))
    args, kwargs = map_tensors((args, kwargs), lambda x: x.roll(shift, axes) if x.dim() == len(axes) + 2 else x)
    return model(*args, **kwargs)


def _difference(before: Tensor, after: Tensor, shift: Sequence[int], strides: Sequence[float | None]) -> Tensor:
    """Return the largest difference of an output (N, …); one with positions is shifted back, each image for itself."""
    spatial = [(axis - len(strides), stride) for axis, stride in enumerate(strides) if stride is not None]
    ways = [before]
    for (dim, stride), by in zip(spatial, shift, strict=False):
        steps = {int(by // stride), -int(-by // stride)}  # where an adaptive phase begins is not known here
        ways = [way.roll(step, dim) for way in ways for step in steps]
    each = [(way - after).abs().flatten(1).amax(1) for way in ways]
    return torch.stack(each).amin(0).max()
