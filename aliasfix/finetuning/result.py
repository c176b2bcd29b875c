"""What fine-tuning found, epoch by epoch."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..text.printing import Tabular, plain_table

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


@dataclass(frozen=True)
class Epoch:
    """One pass over the images; epoch 0 is the model as it was given.

    Args:
        epoch: its number.
        step: optimizer steps done at its end.
        loss: mean over its steps; None for epoch 0.
        validation_loss: the loss without the consistency term, on the images held out.
        top1: share of those that are classified right; None where labels are not trained on.
        agreement: share of those where the model says what the original says; None without the original.
    """

    epoch: int
    step: int
    loss: float | None = None
    validation_loss: float | None = None
    top1: float | None = None
    agreement: float | None = None

    @property
    def score(self) -> tuple[float, float]:
        """The larger the better: accuracy, or agreement without labels, then the loss; later, without validation."""
        if self.validation_loss is None:
            return self.epoch, 0.0
        share = self.top1 if self.top1 is not None else self.agreement
        return share or 0.0, -self.validation_loss


@dataclass(frozen=True)
class Finetuning(Tabular):
    """The epochs of a run, and which was best; prints as a table.

    Args:
        epochs: in order, the model as it was given first.
        path: the best weights, a file for `aliasfix.load`.
        doubt: why nothing can be learnt from the original on these images, as where it gives all of them one class.
    """

    _width: ClassVar[int] = 100

    epochs: tuple[Epoch, ...]
    path: Path
    doubt: str | None = None

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept: the first of the best, the last where no images were held out."""
        return max(self.epochs, key=lambda epoch: epoch.score)

    @property
    def validated(self) -> bool:
        """Whether images were held out, so that one epoch is known to be the best."""
        return any(epoch.validation_loss is not None for epoch in self.epochs)

    @property
    def kept(self) -> str:
        """Which weights were kept, in words."""
        if self.validated:
            return f"the best weights, those of epoch {self.best.epoch}"
        return (
            f"the last weights, those of epoch {self.best.epoch}: without images held out, nothing says which are best"
        )

    def to_json(self) -> str:
        """The epochs as JSON."""
        epochs = [dataclasses.asdict(each) for each in self.epochs]
        found = {"path": str(self.path), "best": self.best.epoch, "validated": self.validated, "doubt": self.doubt}
        return json.dumps({**found, "epochs": epochs})

    def __rich__(self) -> "Table":
        shown = [name for name in _COLUMNS if any(getattr(each, name) is not None for each in self.epochs)]
        table = plain_table("", self.doubt)
        for column in ("epoch", "steps", *(_COLUMNS[name] for name in shown), ""):
            table.add_column(column, justify="right")
        for each in self.epochs:
            values = [_text(name, getattr(each, name)) for name in shown]
            word = ("best" if self.validated else "last") if each == self.best else ""
            table.add_row(str(each.epoch), str(each.step), *values, word)
        return table


_COLUMNS = {"loss": "loss", "validation_loss": "validation loss", "top1": "top-1", "agreement": "agreement"}


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if "loss" in name else f"{value:.1%}"
