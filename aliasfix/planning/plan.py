"""The plan: what is done to every call that samples, and why."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from .. import edits
from ..edits.edit import Edit
from ..errors import AliasfixError
from ..recipe import Recipe
from ..text.printing import Tabular
from .cost import Cost

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


@dataclass(frozen=True)
class Step:
    """One call that a rule is for: of an operation that samples, in most cases.

    Args:
        path: the module it is called in.
        call: the n-th call of the operation directly there.
        op: the function's name.
        rule: the rule that recognised it.
        stride: the sampling rate per spatial axis; empty where the operation does not sample.
        action: ``convert`` or ``keep``.
        form: ``dense``, ``blur-first``, ``split`` or ``fused`` (dense, and linear with its blur, so that both may be
            one product); ``substitute`` where the operation does not sample; None where kept.
        placement: where the blur acts, or what takes the operation's place; None where kept.
        reason: why it is kept, as a sentence; None where converted.
        edits: what surgery does for it.
        cost: of the call and of what is evaluated densely with it, on the input that was traced; None where unknown.
    """

    path: str
    call: int
    op: str
    rule: str
    stride: tuple[int, ...]
    action: str
    form: str | None = None
    placement: str | None = field(default=None, compare=False)
    reason: str | None = field(default=None, compare=False)
    edits: tuple[Edit, ...] = ()
    cost: Cost | None = field(default=None, compare=False)


Call = tuple[str, str, int]
"""A call as steps name it: path, op and its number there."""


@dataclass(frozen=True)
class Link:
    """Calls that share something which is computed at run time, as those of one lattice share their phase.

    Args:
        shares: what they share, in a word.
        decides: the call that computes it, the first of them in a pass.
        follow: the calls that take it from there, in the order of execution: sites, and what merges or samples up
            behind them.
    """

    shares: str
    decides: Call
    follow: tuple[Call, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Link":
        """The link that a plan's JSON holds.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        first, *others = ((str(path), str(op), int(call)) for path, op, call in (data["decides"], *data["follow"]))
        return cls(str(data["shares"]), first, tuple(others))


@dataclass(frozen=True)
class Drift:
    """A merge whose branches a conversion moved apart, by ``shift`` input samples along ``axis``."""

    path: str
    op: str
    axis: int
    shift: float


@dataclass(frozen=True)
class Lattice:
    """How many merges (add, cat, multiply) meet on one lattice, before and after the conversion."""

    merges: int = 0
    aligned_before: int = 0
    aligned_after: int = 0
    drifts: tuple[Drift, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What there is to say, in sentences."""
        if not self.merges:
            return []
        before = f"{self.aligned_before} before conversion"
        found = [f"{self.aligned_after} of {self.merges} merges meet on one lattice ({before})"]
        for drift in self.drifts:
            where = f"{drift.op} in {drift.path or 'the model'}"
            found.append(f"warning: the filter moves the branches of {where} apart by {drift.shift:g} input samples")
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Plan(Tabular):
    """Frozen steps, one per call that a rule is for, in the order of execution.

    Iterating gives the steps; it prints as a table and serialises to JSON. ``cost`` is the price of the whole model on
    the input that was ``traced``, the shape of the first one.
    """

    _width: ClassVar[int] = 140

    recipe: Recipe
    steps: tuple[Step, ...]
    lattice: Lattice = Lattice()
    notes: tuple[str, ...] = ()
    calibration: Mapping[str, Any] | None = None
    """How the weights were calibrated after the steps; None if they were not."""
    cost: Cost | None = field(default=None, compare=False)
    traced: tuple[int, ...] = field(default=(), compare=False)
    links: tuple[Link, ...] = ()
    """What several calls share at run time."""

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def converted(self) -> tuple[Step, ...]:
        """The steps that are converted."""
        return tuple(step for step in self.steps if step.action == "convert")

    @property
    def kept(self) -> tuple[Step, ...]:
        """The steps that are left alone, each with its reason."""
        return tuple(step for step in self.steps if step.action == "keep")

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Every edit once, in order."""
        return tuple(dict.fromkeys(edit for step in self.steps for edit in step.edits))

    @property
    def summary(self) -> str:
        """The plan in one line."""
        filter = self.recipe.filter if isinstance(self.recipe.filter, str) else "the given taps"
        done = f"; calibrated by {self.calibration['method']}" if self.calibration else ""
        what = "sampling operations" if all(step.stride for step in self.steps) else "operations"
        return f"{len(self.converted)} of {len(self)} {what} converted with {filter}, {len(self.kept)} left alone{done}"

    def to_json(self) -> str:
        """The plan as JSON."""
        steps = [dataclasses.asdict(step) | {"edits": [edit.to_dict() for edit in step.edits]} for step in self.steps]
        return json.dumps(
            {
                "recipe": json.loads(self.recipe.to_json()),
                "steps": steps,
                "lattice": dataclasses.asdict(self.lattice),
                "notes": list(self.notes),
                "calibration": None if self.calibration is None else dict(self.calibration),
                "cost": None if self.cost is None else dataclasses.asdict(self.cost),
                "traced": list(self.traced),
                "links": [dataclasses.asdict(link) for link in self.links],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            AliasfixError: not such a plan.
        """
        try:
            data = json.loads(text)
            steps = [
                Step(
                    **{
                        **step,
                        "stride": tuple(step["stride"]),
                        "edits": tuple(map(edits.from_dict, step["edits"])),
                        "cost": Cost.from_dict(step.get("cost")),
                    }
                )
                for step in data["steps"]
            ]
            drifts = tuple(Drift(**drift) for drift in data["lattice"]["drifts"])
            lattice = Lattice(**{**data["lattice"], "drifts": drifts})
            recipe = Recipe.from_json(json.dumps(data["recipe"]))
            calibration = data.get("calibration")
            calibration = None if calibration is None else dict(calibration)
            cost, traced = Cost.from_dict(data.get("cost")), tuple(data.get("traced", ()))
            links = tuple(map(Link.from_dict, data.get("links", ())))
            return cls(recipe, tuple(steps), lattice, tuple(data["notes"]), calibration, cost, traced, links)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AliasfixError(f"this is no plan of aliasfix: {type(error).__name__} {error}") from None

    def __rich__(self) -> "Table":
        from rich.table import Table

        price = [] if self.cost is None else [f"{self.cost.line} on {'x'.join(map(str, self.traced)) or 'no tensor'}"]
        caption = "\n".join([self.summary, *price, *self.lattice.lines, *self.notes])
        table = Table(caption=caption, caption_justify="left", box=None, pad_edge=False)
        for column in ("path", "operation", "stride", "action", "form"):
            table.add_column(column, overflow="fold")
        for column in ("M multiply-adds", "MiB activations"):
            table.add_column(column, justify="right")
        table.add_column("blur, or why it is left alone", overflow="fold")
        for step in self.steps:
            name = step.path or "(model)"
            path = name if step.call == 0 else f"{name} (call {step.call})"
            stride = "x".join(map(str, step.stride))
            figures = ("", "") if step.cost is None else step.cost.columns
            table.add_row(path, step.op, stride, step.action, step.form or "", *figures, step.placement or step.reason)
        return table
