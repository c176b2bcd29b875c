"""What a calibration did: it prints as a table, and goes out as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aliasfix.text.printing import Tabular, plain_table

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


@dataclass(frozen=True)
class Site:
    """A layer behind a blur: how far its output is from the original's, on the images held out.

    ``before`` and ``after`` are the squared error, up to each channel's mean, as a share of the variance of the
    original's output.
    """

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class Scores:
    """A network against its original, on the images held out.

    Args:
        agreement: with the original, in [0, 1]: the share of views with its top-1 class, the mean IoU with its label
            maps, the AP against its objects, or the share within half a semitone; None of values.
        error: the squared difference of the outputs, of detectors that of the feature maps, as a share of the variance
            of the original's.
        consistency: the same agreement between the two views of an image, where both see it.
        psnr: of values against the original's, in dB.
    """

    agreement: float | None
    error: float
    consistency: float | None
    psnr: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What is better is larger: by agreement, then by error."""
        return (0.0 if self.agreement is None else self.agreement, -self.error)


@dataclass(frozen=True)
class Calibration(Tabular):
    """What a calibration did.

    Args:
        method: what was carried out; ``none`` where nothing was better than leaving the model as it was.
        images: how many the network was fitted on.
        held_out: how many it was judged by.
        scores: of the original, of the model before, and after each method that was tried.
        sites: how far the layers behind the blurs are from the original, before and after.
        notes: for the reader.
        doubt: why agreement with the original says nothing here, as where it gives all images one class.
    """

    method: str
    images: int
    held_out: int
    scores: Mapping[str, Scores]
    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()
    doubt: str | None = None

    @property
    def before(self) -> Scores:
        """Of the converted network as it was given."""
        return self.scores["before"]

    @property
    def after(self) -> Scores:
        """Of the calibrated network."""
        return self.scores.get(self.method, self.before)

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        if self.method == "none":
            return f"left as it was: no method was better on {self.held_out} images held out"
        return f"calibrated by {self.method} on {self.images} images, judged by {self.held_out} others"

    def as_dict(self) -> dict[str, Any]:
        """The calibration as JSON-able values."""
        return dataclasses.asdict(self) | {"scores": {name: dataclasses.asdict(of) for name, of in self.scores.items()}}

    def to_json(self) -> str:
        """The calibration as JSON."""
        return json.dumps(self.as_dict())

    def __rich__(self) -> Table:
        table = plain_table("\n".join([self.summary, *self.notes]), self.doubt)
        table.add_column("network, or layer behind a blur", overflow="fold")
        for column in ("agreement" if self.before.psnr is None else "PSNR", "consistency", "error"):
            table.add_column(column, justify="right")
        for name, scores in self.scores.items():
            chosen = " (taken)" if name == self.method else ""
            agreement = _share(scores.agreement) if scores.psnr is None else f"{scores.psnr:.1f} dB"
            table.add_row(name + chosen, agreement, _share(scores.consistency), f"{scores.error:.3f}")
        for site in self.sites:
            table.add_row(site.path, "", "", f"{site.before:.3f} → {site.after:.3f}")
        return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
