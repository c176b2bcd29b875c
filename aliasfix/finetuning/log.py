"""What a run reports while it goes on: its progress, ``metrics.csv`` and TensorBoard."""

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import Any

from ..files import saving
from ..text.progress import Work

NAME = "metrics.csv"
FIELDS = ("step", "epoch", "lr", "loss", "validation_loss", "top1", "agreement")


class Log:
    """A row for each step, in the process that writes.

    Args:
        folder: where to.
        step: the one that a run goes on after; later rows, of before it was killed, are dropped. −1: it begins.
        total: steps of the whole run.
        active: False in all other processes.
    """

    def __init__(self, folder: Path, step: int, total: int, active: bool) -> None:
        self._active = active
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / NAME
        _keep(self._path, step)
        self._file = self._path.open("a", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, FIELDS)
        self._board: Any = SummaryWriter(folder, purge_step=step + 1)
        self._work = Work("training", total, "step")
        self._work.done = max(step, 0)

    def __enter__(self) -> "Log":
        if self._active:
            self._work.__enter__()
        return self

    def row(self, step: int, epoch: int, **values: float | None) -> None:
        """What was seen at a step."""
        if not self._active:
            return
        known = {name: value for name, value in values.items() if value is not None}
        self._csv.writerow({"step": step, "epoch": epoch, **known})
        self._file.flush()
        for name, value in known.items():
            self._board.add_scalar(name, value, step)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if name != "lr")
        self._work.advance(step - self._work.done, f"epoch {epoch}: {shown}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._work.__exit__()
            self._board.close()
            self._file.close()


def _keep(path: Path, step: int) -> None:
    """The rows up to a step, and the header."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # a killed process may leave half a row, which is of a later step than the state that it wrote before
    rows = [row for row in csv.DictReader(io.StringIO(text)) if (row["step"] or "").isdecimal()]
    with saving.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({name: row[name] for name in FIELDS} for row in rows if int(row["step"]) <= step)
