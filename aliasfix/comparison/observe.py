"""Measure one network with every metric that applies. A metric that fails leaves the others."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.families.layout import shifted_axes
from aliasfix.families.reading import Answer
from aliasfix.images.views import Views
from aliasfix.measure import filter_variation
from aliasfix.measure.doubt import doubt_of
from aliasfix.measure.metric import Metric, Need, metrics
from aliasfix.measure.running import Output, Runner, running
from aliasfix.measure.subject import Pass, Setting, Subject
from aliasfix.planning.plan import Plan
from aliasfix.text.progress import Work, tell
from aliasfix.text.wording import one_line

T = TypeVar("T")


@dataclass
class Observation:
    """The measurements of one network."""

    values: dict[str, Tensor] = field(default_factory=dict)
    """(I,) by name of the metric."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name of the metric, why it is missing."""
    passes: dict[Pass, Any] = field(default_factory=dict)
    """Results of the passes over the images that metrics share, see `Subject.once`."""
    kernels: dict[str, float] = field(default_factory=dict)
    """Total variation of the learned filters by the path of the convolution."""

    def of(self, run: Callable[[Subject], T]) -> T | None:
        """Return the result of one pass, None if it did not run or failed."""
        return self.passes.get(run)


def probe(model: nn.Module, views: Views, output: Output, name: str) -> Answer:
    """What a model says of one image.

    Raises:
        AliasfixError: it does not run on the image, or returns what cannot be measured.
    """
    (image,) = views.centres(1)
    try:
        with running(model, output, "probe") as run:
            answer = run.answer(run.place(image[None]), values=False)
    except AliasfixError as error:
        raise AliasfixError(f"{name}: {error}") from error
    except Exception as error:
        given = "x".join(map(str, image.shape))
        raise AliasfixError(
            f"{name} does not run on images of {given} ({one_line(error)}): give another size"
        ) from error
    dims = shifted_axes(model, image.ndim) + 2
    if answer.kind is None and any(one.ndim != dims for one in answer.maps):
        raise AliasfixError(
            f"{name} returned {answer}, neither logits (batch, classes) nor maps (batch, C, "
            f"{'h, w' if dims == 4 else '...'}): pass output= a function that makes them"
        )
    return answer


def satisfied(answer: Answer) -> Iterator[Need]:
    """The needs of metrics that an output of a kind satisfies."""
    if answer.kind is not None:
        yield answer.kind
    if answer.kind == "keypoints":
        yield "boxes"
    if answer.kind in (None, "label map", "dense") and len(answer.maps) == 1:
        yield "maps"
        if answer.kind != "dense":
            yield "classes"
        if answer.kind != "label map":
            yield "values"


def observe(
    model: nn.Module,
    views: Views,
    wanted: Sequence[str],
    setting: Setting,
    *,
    called: str = "the network",
    plan: Plan | None = None,
    layers: Sequence[str] = (),
    reference: Observation | None = None,
    found: Observation | None = None,
) -> Observation:
    """Measure one network with the wanted metrics.

    Args:
        model: the network.
        views: its images.
        wanted: names of metrics.
        setting: how much to measure.
        called: what it is called while it is measured.
        plan: has the sampling sites that aliasing is measured at.
        layers: names of the modules whose features are followed.
        reference: the measurements of the first network; the second is compared with its classes.
        found: earlier measurements of the network on the same images; the new ones are added to it.
    """
    found = found or Observation(kernels=filter_variation(model))
    subject = Subject(model, views, setting, plan, layers, found.passes, reference.passes if reference else None)
    with Work(called, len(wanted), "measure") as work:
        for name in wanted:
            work.advance(0, name)
            try:
                found.values[name] = _values(metrics()[name], subject)
            except Exception as error:
                found.failed[name] = why(error)
            work.advance()
    return found


def doubts(model: nn.Module, views: Views, wanted: Sequence[str], setting: Setting, called: str) -> str | None:
    """Why nothing can be concluded from what the first network says of the images; None for no classifier."""
    if not any("logits" in metrics()[name].needs for name in wanted):
        return None
    try:
        found = doubt_of(model, views, called, setting.output, setting.batch_size)
    except Exception:  # the measures say why
        return None
    if found is not None:
        tell(f"warning: {found}")
    return found


def why(error: Exception) -> str:
    """Why a measure is missing, in words of ours, and what to do about it.

    >>> why(AliasfixError("the model returned NaN"))
    'the model returned NaN'
    >>> why(MemoryError())
    'out of memory: lower batch_size (--batch-size)'
    """
    if isinstance(error, AliasfixError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return "out of memory: lower batch_size (--batch-size)"
    frames = list(traceback.walk_tb(error.__traceback__))
    if any(frame.f_code is Runner.forward.__code__ for frame, _ in frames):
        return f"the network does not run on all that the measure gives it ({one_line(error)})"
    file, line = frames[-1][0].f_code.co_filename, frames[-1][1]
    warnings.warn(f"{one_line(error)}, at line {line} of {file}", stacklevel=2)
    return "a mistake of the measure itself, not of yours: please report it, with the warning that says where it is"


def _values(metric: Metric, subject: Subject) -> Tensor:
    if "layers" in metric.needs and not subject.layers:
        raise AliasfixError("the networks have no layer in common before or after a sampling site")
    if "sites" in metric.needs and not subject.plan:
        raise AliasfixError("no strided module subsamples at a site of the plan")
    values = metric.measure(subject)
    if values.ndim != 1:
        raise AliasfixError(f"metric {metric.name} returned {tuple(values.shape)}, not a value for each image")
    return values
