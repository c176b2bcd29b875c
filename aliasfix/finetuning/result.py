"""What fine-tuning found, epoch by epoch."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..text.printing import Tabular

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
    """

    _width: ClassVar[int] = 100

    epochs: tuple[Epoch, ...]
    path: Path

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept: the first of the best."""
        return max(self.epochs, key=lambda epoch: epoch.score)

    def to_json(self) -> str:
        """The epochs as JSON."""
        epochs = [dataclasses.asdict(each) for each in self.epochs]
        return json.dumps({"path": str(self.path), "best": self.best.epoch, "epochs": epochs})

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("epoch", "steps", "loss", "validation loss", "top-1", "agreement", ""):
            table.add_column(column, justify="right")
        for each in self.epochs:
            losses = ["–" if value is None else f"{value:.4f}" for value in (each.loss, each.validation_loss)]
            shares = ["–" if value is None else f"{value:.1%}" for value in (each.top1, each.agreement)]
            table.add_row(str(each.epoch), str(each.step), *losses, *shares, "best" if each == self.best else "")
        return table
