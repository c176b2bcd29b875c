"""One network at several stages, as original, converted and calibrated, on the same images: what is kept and gained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from aliasfix.comparison.comparison import choose, noted, put_together, sites
from aliasfix.comparison.observe import Observation, doubts, observe
from aliasfix.comparison.result import Comparison, Measure
from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images
from aliasfix.images.views import Views
from aliasfix.measure.running import Output
from aliasfix.measure.subject import Setting
from aliasfix.text.printing import Tabular, plain_table

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick

COLUMNS = {
    "agreement": "says what the original says",
    "consistency": "two shifts, one class",
    "variation": "probability varies by",
    "probability": "probability of the class",
}
"""The measures of the table, with short titles."""


@dataclass(frozen=True)
class Stages(Tabular):
    """A network's stages, each compared with the first.

    Args:
        comparisons: of the first with each later stage, in order; the last holds every measure and figure.
    """

    comparisons: tuple[Comparison, ...]

    @property
    def last(self) -> Comparison:
        """The first stage against the last, in every measure."""
        return self.comparisons[-1]

    @property
    def verdict(self) -> str:
        """What the last stage keeps of the first, and how much steadier it is, in one sentence."""
        found = self.last
        agreement, steady = found.get("agreement"), found.get("consistency")
        if found.doubt is not None or agreement is None or steady is None:
            return found.verdict
        spread = found.get("variation")
        moved = [f"two shifts of an image get one class in {_moved(steady)}"]
        moved += [f"the probability of its class varies by {_moved(spread)}"] if spread is not None else []
        kept = f"{found.names[1].capitalize()}, the network gives {agreement.text(agreement.b)} of the views"
        how = f"{found.setting['confidence']:.0%} intervals, {steady.images} images"
        return f"{kept} the original's top-1 class; {', and '.join(moved)} ({how})."

    def as_dict(self) -> dict[str, Any]:
        """All figures, of what JSON knows."""
        return {"verdict": self.verdict, "comparisons": [one.as_dict() for one in self.comparisons]}

    def to_json(self) -> str:
        """All figures as JSON."""
        return json.dumps(self.as_dict())

    def __rich__(self) -> Table:
        table = plain_table("" if self.last.doubt else self.verdict, self.last.doubt)
        for number, head in enumerate(heads(self)):
            table.add_column(head, justify="right" if number else "left", overflow="fold")
        for row in rows(self):
            table.add_row(*row)
        return table


def _moved(measure: Measure) -> str:
    """A measure of the last stage and of the first, and the difference, in words."""
    assert measure.a is not None
    assert measure.b is not None
    number = measure.kind.number
    shown = {True: "steadier", False: "less steady", None: "no difference shown"}[measure.better]
    change = f"{measure.text(measure.difference, signed=True)} points, {shown}"
    return f"{number(measure.b.mean)} instead of {number(measure.a.mean)} ({change})"


def heads(stages: Stages) -> list[str]:
    """The columns of the table: those measures that were taken."""
    return ["network", *(title for name, title in COLUMNS.items() if stages.last.get(name))]


def rows(stages: Stages) -> list[list[str]]:
    """A row for each stage: its measures with their intervals."""
    names = [name for name in COLUMNS if stages.last.get(name)]
    found = [[stages.last.names[0], *(_text(stages.last, name, "a") for name in names)]]
    found += [[one.names[1], *(_text(one, name, "b") for name in names)] for one in stages.comparisons]
    return found


def _text(found: Comparison, name: str, which: str) -> str:
    measure = found.get(name)
    return "–" if measure is None else measure.text(getattr(measure, which))


def compare_stages(
    networks: Mapping[str, nn.Module],
    images: Images,
    *,
    margin: int | None = None,
    size: int | None = None,
    passes: int = 5,
    diagonal: int = 32,
    reach: int = 2,
    feature_images: int = 8,
    feature_shifts: int = 8,
    batch_size: int = 16,
    seed: int = 0,
    output: Output = None,
) -> Stages:
    """Measure several stages of one classifier on the same images.

    Those of the table are taken of every stage, the others of the first and the last.

    Args:
        networks: by what the stage is called, the original first; two or more.
        images: see `compare`.

    The others are those of `compare`.

    Raises:
        AliasfixError: fewer than two networks, or as in `compare`.

    >>> import torch
    >>> from aliasfix import convert
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 4)).eval()
    >>> found = compare_stages({"original": net, "converted": convert(net, example_input=torch.ones(1, 3, 18, 18))},
    ...                        torch.randn(6, 3, 18, 18))
    >>> [row[0] for row in rows(found)]
    ['original', 'converted']
    """
    if len(networks) < 2:
        raise AliasfixError("give two networks or more to compare: the original and what became of it")
    setting = Setting(passes, diagonal, reach, feature_images, feature_shifts, batch_size, seed, output)
    (first, original), *later = networks.items()
    last, final = later[-1]
    with noted() as notes:
        views = Views(images, original, size, margin, beside=final)
        wanted = choose(original, final, views, setting, (first, last), None)
        doubted = doubts(original, views, wanted, setting, first)
        plan, followed = sites(original, final, views, wanted, notes)
        quick = [name for name in wanted if name in COLUMNS]
        found: dict[str, Observation] = {}
        for name, network in networks.items():
            found[name] = observe(
                network, views, wanted if name in (first, last) else quick, setting,
                called=name, plan=plan, layers=followed, reference=found.get(first),
            )  # fmt: skip
    together: Sequence[Comparison] = [
        put_together(
            (first, name), views, wanted if name == last else quick, found[first], found[name], setting,
            plan if name == last else None, notes, doubt=doubted,
        )
        for name, _ in later
    ]  # fmt: skip
    return Stages(tuple(together))
