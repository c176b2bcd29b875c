"""The result of a comparison: prints as a table, has a verdict in one sentence, and converts to JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from PIL import Image
from torch import Tensor

from aliasfix.comparison.bootstrap import Estimate
from aliasfix.measure.metric import Metric, metrics
from aliasfix.measure.shifts import Shift
from aliasfix.measure.subject import Pass, Subject
from aliasfix.planning.plan import Plan
from aliasfix.text.printing import Tabular, plain_table

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick

T = TypeVar("T")


@dataclass(frozen=True)
class Measure:
    """One metric of both networks, or the reason why it is missing."""

    name: str
    a: Estimate | None = None
    b: Estimate | None = None
    difference: Estimate | None = None
    """Of b − a, by the paired bootstrap."""
    images: int = 0
    failed: str | None = None

    @property
    def kind(self) -> Metric:
        """The metric: what is measured, how it is printed, and which direction is better."""
        return metrics()[self.name]

    @property
    def better(self) -> bool | None:
        """Whether the second network is better; None where the interval holds 0 or there is none."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return None
        if self.kind.relative:
            return None
        up = self.difference.low > 0
        if not up and not self.difference.high < 0:
            return None
        return up == (self.kind.better == "higher")

    def text(self, estimate: Estimate | None, signed: bool = False) -> str:
        """An estimate with its interval, as a person reads it."""
        if estimate is None:
            return "–"
        number = self.kind.number
        mean = number(estimate.mean, signed)
        if estimate.low is None or estimate.high is None:
            return mean
        return f"{mean} [{number(estimate.low, signed)}, {number(estimate.high, signed)}]"


@dataclass(frozen=True)
class Curve:
    """The probability of one image's class against a diagonal shift: figure 1 of the paper."""

    image: str
    label: int
    shifts: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    called: str = ""
    """The class by name."""
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Layer:
    """How far the features of one layer are from shifting with the input: figure 5 of the paper."""

    name: str
    shifts: tuple[Shift, ...]
    a: Tensor
    """(N,), cosine distance at each shift."""
    b: Tensor
    scale: float
    """Half the mean distance between two images in the first network: the paper's red."""


@dataclass(frozen=True)
class Positions:
    """Accuracy at each of N shifts of the images."""

    shifts: tuple[Shift, ...]
    a: Tensor
    """(N,), share of the images classified correctly, in [0, 1]."""
    b: Tensor


@dataclass(frozen=True)
class Corruptions:
    """Errors under each of the common corruptions, means over images and severities."""

    names: tuple[str, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    mean_relative: float | None
    """The second network's mean corruption error relative to the first's; None where the first makes no error."""
    labelled: bool
    """Whether an error is a wrong class, or, without labels, another class than the network's own of the clean
    image."""


@dataclass(frozen=True)
class Comparison(Tabular):
    """Two networks, measured alike on the same images."""

    _width: ClassVar[int] = 160

    names: tuple[str, str]
    images: int
    labelled: bool
    setting: Mapping[str, Any]
    measures: tuple[Measure, ...]
    values: Mapping[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    """By name of the metric, (I,) of each network."""
    passes: Mapping[Pass, tuple[Any, Any]] = dataclasses.field(default_factory=dict, repr=False)
    """By function that ran with `Subject.once`, what it returned for each network."""
    curves: tuple[Curve, ...] = ()
    layers: tuple[Layer, ...] = ()
    sites: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """By the plan's path, the share of the energy that folds over, of each network."""
    grid: Positions | None = None
    """Accuracy at the shifts an adversary may pick, and along the diagonal; with labels."""
    diagonal: Positions | None = None
    corruptions: Corruptions | None = None
    kernels: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """By convolution, the normalised total variation of the filters of each network."""
    plan: Plan | None = None
    doubt: str | None = None
    """Why nothing can be concluded, as where the first network gives all images one class."""
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Measure:
        """The measure of that name."""
        return next(measure for measure in self.measures if measure.name == name)

    def get(self, name: str) -> Measure | None:
        """The measure of that name, if it was taken without failing."""
        return next((m for m in self.measures if m.name == name and m.failed is None), None)

    def both(self, run: Callable[[Subject], T]) -> tuple[T, T] | None:
        """What a function that ran with `Subject.once` returned for each network; None if it did not run on both."""
        return self.passes.get(run)

    @property
    def variation(self) -> tuple[Tensor, Tensor] | None:
        """(I,) of each network: the distribution of the variation."""
        return self.values.get("variation")

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.doubt is not None:
            return f"No conclusion: {self.doubt}."
        main = next(filter(None, map(self.get, _MAIN)), None) or next((m for m in self.measures if m.a), None)
        if main is None or main.a is None or main.b is None or main.difference is None:
            return f"Nothing could be measured of {self.names[0]} and {self.names[1]}."
        subject = f"{self.names[1]} against {self.names[0]}"
        images = f"{main.images} image{'s' if main.images > 1 else ''}"
        what = main.kind.title.partition(":")[0]
        figures = f"{what} {main.kind.number(main.a.mean)} → {main.kind.number(main.b.mean)}"
        if main.difference.low is not None and main.difference.high is not None:
            low, high = main.kind.number(main.difference.low, True), main.kind.number(main.difference.high, True)
            figures += f" (difference {low} to {high} on {images})"
        else:
            figures += f" on {images}"
        found = {
            True: f"{subject}: steadier, {figures}",
            False: f"{subject}: less steady, {figures}",
            None: f"{subject}: no difference in steadiness is shown, {figures}",
        }[main.better]
        return f"{found}{self._cost()}."

    def _cost(self) -> str:
        accuracy, agreement = self.get("top1"), self.get("agreement")
        if accuracy and accuracy.a and accuracy.b:
            figures = f"{accuracy.kind.number(accuracy.a.mean)} → {accuracy.kind.number(accuracy.b.mean)}"
            lost = accuracy.better is False
            return f"; accuracy {figures}{', so calibrate or fine-tune it before use' if lost else ''}"
        if agreement and agreement.b:
            lost = agreement.b.mean < 0.95
            advice = ", so calibrate or fine-tune it before use" if lost else ""
            return f"; it gives the first's class to {agreement.kind.number(agreement.b.mean)} of the views{advice}"
        return ""

    def to_json(self) -> str:
        """Return all values as JSON. NaN and infinity become null."""
        return json.dumps(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return all values as types that JSON has."""
        measures = [
            dataclasses.asdict(measure) | {"title": measure.kind.title, "better_is": measure.kind.better}
            for measure in self.measures
        ]
        found = {
            "verdict": self.verdict,
            "doubt": self.doubt,
            "names": list(self.names),
            "images": self.images,
            "labelled": self.labelled,
            "setting": dict(self.setting),
            "measures": measures,
            "curves": [
                {"image": c.image, "label": c.label, "class": c.called, "shifts": c.shifts, "a": c.a, "b": c.b}
                for c in self.curves
            ],
            "variation": None if self.variation is None else [v.tolist() for v in self.variation],
            "layers": [
                {"layer": x.name, "shifts": x.shifts, "a": x.a.tolist(), "b": x.b.tolist(), "red": x.scale}
                for x in self.layers
            ],
            "fold_over": {path: list(pair) for path, pair in self.sites.items()},
            "accuracy_by_position": {
                which: {"shifts": at.shifts, "a": at.a.tolist(), "b": at.b.tolist()}
                for which, at in (("grid", self.grid), ("diagonal", self.diagonal))
                if at is not None
            },
            "corruptions": None if self.corruptions is None else dataclasses.asdict(self.corruptions),
            "filter_variation": {path: list(pair) for path, pair in self.kernels.items()},
            "plan": None if self.plan is None else json.loads(self.plan.to_json()),
            "notes": list(self.notes),
            "versions": dict(self.versions),
        }
        return {key: _finite(value) for key, value in found.items()}

    def __rich__(self) -> Table:
        table = plain_table("" if self.doubt else self.verdict, self.doubt)
        table.add_column("measure", overflow="fold")
        for header in (*self.names, "difference"):
            table.add_column(header, justify="right")
        table.add_column("")
        for measure in self.measures:
            if measure.failed is not None:
                table.add_row(measure.kind.title, "–", "–", "–", f"not measured: {measure.failed}")
                continue
            cells = [measure.text(measure.a), measure.text(measure.b), measure.text(measure.difference, signed=True)]
            word = {True: "better", False: "worse", None: ""}[measure.better]
            table.add_row(measure.kind.title, *cells, word)
        if self.corruptions is not None and (relative := self.corruptions.mean_relative) is not None:
            table.add_row("mean corruption error, relative to the first", "1.00", f"{relative:.2f}", "", "")
        return table


_MAIN = ("consistency", "massc", "maisc", "psnr", "pitch", "stability")
"""What the verdict is about: the first of these that was measured."""


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
