"""Convert one network with each of several filters, and recommend one."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aliasfix.comparison.comparison import choose, noted, put_together, versions
from aliasfix.comparison.cost import latencies, memory
from aliasfix.comparison.observe import Observation, doubts, observe
from aliasfix.comparison.result import Comparison
from aliasfix.comparison.sites import layers
from aliasfix.conversion import convert, inspect, report
from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images
from aliasfix.images.known import Given
from aliasfix.images.views import Views
from aliasfix.measure.metric import metrics
from aliasfix.measure.running import Output
from aliasfix.measure.subject import Setting
from aliasfix.recipe import Recipe
from aliasfix.running import where
from aliasfix.text.printing import Tabular, plain_table

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


class NothingToConvertError(AliasfixError):
    """No operation of the model is converted, with any filter."""


ORIGINAL = "original"


@dataclass(frozen=True)
class FilterRow:
    """What one filter gives and costs."""

    filter: str
    features: float | None
    """How far they move at the sampling sites, a cosine distance; in [0, 2]."""
    consistency: float | None
    agreement: float | None
    """With the original, over the diagonal's shifts; in [0, 1]."""
    accuracy: float | None
    seconds: float
    """Of a forward pass, for one image."""
    bytes: float
    """Peak of the tensors alive in it, for one image."""
    steadier: bool | None = None
    """Whether consistency is above (True) or below (False) the original's; None where neither is shown."""


@dataclass(frozen=True)
class FilterSweep(Tabular):
    """The original and every filter, the most consistent first."""

    original: FilterRow
    rows: tuple[FilterRow, ...]
    taken: str
    """The filter that one would take."""
    why: str
    comparison: Comparison
    """The original against one filter, in every measure."""

    @property
    def verdict(self) -> str:
        """Which filter, and why, in one sentence."""
        if self.comparison.doubt is not None:
            return self.comparison.verdict
        if all(row.consistency is None for row in (self.original, *self.rows)):
            return f"No filter is shown to be better: {self.comparison['consistency'].failed}."
        return f"Take {self.taken}: {self.why}."

    def to_json(self) -> str:
        """All figures as JSON."""
        return json.dumps(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """All figures, of what JSON knows."""
        return {
            "verdict": self.verdict,
            "taken": self.taken,
            "original": dataclasses.asdict(self.original),
            "filters": [dataclasses.asdict(row) for row in self.rows],
            "comparison": self.comparison.as_dict(),
            "versions": versions(),
        }

    def __rich__(self) -> Table:
        table = plain_table("" if self.comparison.doubt else self.verdict, self.comparison.doubt)
        for header in headers(self):
            table.add_column(header, justify="left" if header == "filter" else "right")
        for row in (self.original, *self.rows):
            table.add_row(*cells(self, row))
        return table


def headers(sweep: FilterSweep) -> list[str]:
    """The columns of the table; accuracy where there are labels."""
    accuracy = ["accuracy"] if sweep.original.accuracy is not None else []
    return ["filter", "features move", "consistency", "agreement", *accuracy, "time an image", "memory an image"]


def cells(sweep: FilterSweep, row: FilterRow) -> list[str]:
    """A row as text: time and memory with their ratio to the original's."""
    shares = [
        row.features,
        row.consistency,
        row.agreement,
        *([row.accuracy] if sweep.original.accuracy is not None else []),
    ]
    time = f"{1000 * row.seconds:.1f} ms (×{row.seconds / sweep.original.seconds:.2f})"
    most = f"{row.bytes / 2**20:.1f} MiB (×{row.bytes / sweep.original.bytes:.2f})"
    return [row.filter, *("–" if share is None else f"{share:.1%}" for share in shares), time, most]


def compare_filters(
    model: nn.Module,
    filters: Sequence[str],
    images: Images,
    *,
    recipe: Recipe | None = None,
    detail: str | None = None,
    corruptions: bool = False,
    size: int | None = None,
    margin: int | None = None,
    preprocessing: Given = None,
    passes: int = 5,
    diagonal: int = 32,
    reach: int = 2,
    feature_images: int = 8,
    feature_shifts: int = 8,
    batch_size: int = 16,
    seed: int = 0,
    output: Output = None,
) -> FilterSweep:
    """Convert a classifier with each filter, rank them, and say which one to take.

    Ranked by consistency, then agreement with the original, time and memory. Taken is, among the filters whose
    consistency is above the original's by the paired bootstrap, the most accurate one, without labels the one that
    agrees most with the original; if there is none, the one of all, to be fine-tuned.

    Args:
        model: the original, left as it is.
        filters: names of `aliasfix.filters`.
        images: see `compare`.
        recipe: the other options of the conversions.
        detail: the filter that is compared with the original in every measure; by default the one taken.

    The others are those of `compare`.

    Raises:
        AliasfixError: no filters, one that does not exist, a network that is no classifier or is converted already,
            or as in `compare`.
        NothingToConvertError: no filter changes the network.
    """
    recipes = {name: dataclasses.replace(recipe or Recipe(), filter=name) for name in dict.fromkeys(filters)}
    if not recipes:
        raise AliasfixError("no filters to compare: give at least one, such as tri3")
    if detail is not None and detail not in recipes:
        raise AliasfixError(f"detail={detail!r} is none of the filters compared: {', '.join(recipes)}")
    if report(model) is not None:
        raise AliasfixError("the model is converted already: sweep the filters over aliasfix.revert(model)")
    setting = Setting(passes, diagonal, reach, feature_images, feature_shifts, batch_size, seed, output)
    with noted() as notes:
        views = Views(images, model, size, margin, preprocessing)
        wanted = choose(model, model, views, setting, (ORIGINAL, ORIGINAL), None, corruptions)
        if "consistency" not in wanted:
            raise AliasfixError("a sweep of filters needs a classifier: compare the two networks instead")
        doubted = doubts(model, views, wanted, setting, ORIGINAL)
        light = [name for name in wanted if metrics()[name].light]
        rest = [name for name in wanted if name not in light]
        few = torch.stack(list(views.centres(2)))
        networks = _networks(model, recipes, few)
        plans = {name: plan for name, network in networks.items() if (plan := report(network)) is not None}
        followed = layers(next(iter(plans.values())), list(networks.values()), few)
        found: dict[str, Observation] = {}
        pairs: dict[str, Comparison] = {}
        for name, network in networks.items():
            found[name] = observe(
                network, views, light, setting, called=name, layers=followed, reference=found.get(ORIGINAL)
            )
            pairs[name] = put_together((ORIGINAL, name), views, light, found[ORIGINAL], found[name], setting, None, ())
        seconds = latencies(list(networks.values()), few)
        rows = [
            _row(name, pairs[name], one, memory(network, few))
            for (name, network), one in zip(networks.items(), seconds, strict=True)
        ]
        ranked = sorted(rows[1:], key=_rank)
        taken, why = choice(ranked)
        shown = detail or taken
        for name in (ORIGINAL, shown):
            observe(
                networks[name], views, rest, setting, called=name,
                plan=plans[shown], layers=followed, reference=found.get(ORIGINAL) if name != ORIGINAL else None,
                found=found[name],
            )  # fmt: skip
    closer = put_together(
        (ORIGINAL, shown), views, wanted, found[ORIGINAL], found[shown], setting, plans[shown], notes, doubt=doubted
    )
    return FilterSweep(rows[0], tuple(ranked), taken, why, closer)


def _networks(model: nn.Module, recipes: Mapping[str, Recipe], images: Tensor) -> dict[str, nn.Module]:
    """The original and a conversion with each filter."""
    example = images.to(where(model, images))
    plan = inspect(model, example_input=example, recipe=next(iter(recipes.values())))
    if not plan.converted:
        reason = plan.kept[0].reason if plan.kept else "No operation in it samples."
        raise NothingToConvertError(f"nothing to convert in {type(model).__name__}: {reason}")
    return {ORIGINAL: model} | {name: _converted(model, recipe, example) for name, recipe in recipes.items()}


def choice(ranked: Sequence[FilterRow]) -> tuple[str, str]:
    """The filter that one would take of those ranked, and why.

    >>> ranked = [
    ...     FilterRow("bin5", 0.1, 0.95, 0.5, None, 1, 1, True), FilterRow("tri3", 0.2, 0.9, 0.8, None, 1, 1, True)
    ... ]
    >>> choice(ranked)[0]
    'tri3'
    """
    steadier = [row for row in ranked if row.steadier]
    keeps = {row.filter: row.agreement if row.accuracy is None else row.accuracy for row in ranked}
    most = max(steadier or ranked, key=lambda row: (keeps[row.filter] or 0, row.consistency or 0, -row.seconds))
    share = keeps[most.filter]
    figure = "" if share is None else f"{share:.1%}"
    if most.accuracy is None:
        stays = f"agrees with the original on {figure} of the views"
    else:
        stays = f"classifies {figure} of the views correctly"
    if steadier:
        others = f", the most of the {len(steadier)} filters that are" if len(steadier) > 1 else ""
        return most.filter, f"it is steadier than the original and {stays}{others}"
    return (
        most.filter,
        f"as converted no filter is shown to be steadier than the original on these images, and it {stays}, "
        f"{'the most, ' if len(ranked) > 1 else ''}which leaves the least to fine-tune",
    )


def _rank(row: FilterRow) -> tuple[float, ...]:
    return (-(row.consistency or 0), -(row.agreement or 0), row.seconds, row.bytes)


def _row(filter: str, both: Comparison, seconds: float, most: float) -> FilterRow:
    means = {m.name: m.b.mean for m in both.measures if m.b is not None}
    consistency = both.get("consistency")
    return FilterRow(
        filter,
        means.get("features"),
        means.get("consistency"),
        means.get("agreement"),
        means.get("top1"),
        seconds,
        most,
        consistency.better if consistency else None,
    )


def _converted(model: nn.Module, recipe: Recipe, example: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an even filter moves branches apart stands in the plan
        return convert(model, recipe=recipe, example_input=example)
