"""The network that is measured, with its images and settings: the argument of every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from torch import nn

from aliasfix.images.views import Views
from aliasfix.measure.running import Output
from aliasfix.measure.shifts import Shift
from aliasfix.measure.sweeping import Sweep, sweep
from aliasfix.planning.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """How much to measure; see `aliasfix.compare`."""

    passes: int = 5
    diagonal: int = 32
    reach: int = 2
    feature_images: int = 8
    feature_shifts: int = 8
    batch_size: int = 16
    seed: int = 0
    output: Output = None


@dataclass
class Subject:
    """A network, its images, and the results that its metrics share.

    Args:
        model: the network.
        views: its images; ``views.labelled`` says whether they have labels.
        setting: how much to measure.
        plan: has the sampling sites.
        layers: names of the modules before and after the sites.
        passes: results of `once`, by function.
        reference: the same of the first network of the comparison; None for the first itself.
    """

    model: nn.Module
    views: Views
    setting: Setting
    plan: Plan | None = None
    layers: Sequence[str] = ()
    passes: dict[Pass, Any] = field(default_factory=dict)
    reference: Mapping[Pass, Any] | None = None
    _errors: dict[Pass, Exception] = field(default_factory=dict)

    def once(self, run: Callable[[Subject], T]) -> T:
        """Return ``run(self)``, which runs at most once however many metrics ask for it.

        The comparison keeps the result beside that of the other network: see `Comparison.both`.
        """
        if run in self._errors:
            raise self._errors[run]
        if run not in self.passes:
            try:
                self.passes[run] = run(self)
            except Exception as error:  # a metric's own, raised again for the next that asks
                self._errors[run] = error
                raise
        result: T = self.passes[run]
        return result

    @property
    def drawn(self) -> dict[str, Any]:
        """The arguments of every metric over random shifts."""
        setting = self.setting
        return {
            "batch_size": setting.batch_size,
            "passes": setting.passes,
            "seed": setting.seed,
            "output": setting.output,
        }

    def sweep(self, shifts: Sequence[Shift]) -> Sweep:
        """Classify every image at every shift: by crop where the images have a margin, else circularly.

        Without labels, the class watched is the one that the first network gives the unshifted image.
        """
        known: Sweep | None = None if self.reference is None else self.reference.get(along_diagonal)
        views = self.views
        images = views if views.labelled or known is None else views.targeted(known.target.tolist())
        return sweep(
            self.model,
            images,
            shifts,
            size=views.size if views.margin else None,
            batch_size=self.setting.batch_size,
            output=self.setting.output,
        )


Pass: TypeAlias = Callable[[Subject], Any]


def along_diagonal(subject: Subject) -> Sweep:
    """Classify every image at the shifts along the diagonal; call it as ``subject.once(along_diagonal)``."""
    return subject.sweep(diagonal_shifts(subject.views, subject.setting.diagonal))


def diagonal_shifts(views: Views, count: int) -> list[Shift]:
    """Return crops from corner to corner of the margin, or circular shifts without one; the unshifted is in it.

    >>> import torch
    >>> len(diagonal_shifts(Views(torch.zeros(1, 3, 40, 40), nn.Identity(), size=32), 8))
    8
    """
    room = views.margin or views.size
    step = max(1, room // count)
    half = room // 2 // step if views.margin else 0
    many = min(count, room // step)
    down = 1 if views.axes > 1 else 0  # a signal has nothing but a length
    return [(float(down * step * (d - half)), float(step * (d - half))) for d in range(many)]
