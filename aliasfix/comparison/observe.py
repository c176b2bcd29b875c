"""Measure one network in every way that applies, one by one: what fails takes nothing with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from aliasfix import measure
from aliasfix.comparison.sites import sampled_at
from aliasfix.errors import AliasfixError
from aliasfix.images.views import Views
from aliasfix.measure import CorruptionErrors, FeatureDistance, Sweep
from aliasfix.measure.running import Output, running
from aliasfix.measure.shifts import Shift
from aliasfix.planning.plan import Plan
from aliasfix.text.wording import one_line


@dataclass(frozen=True)
class Kind:
    """What a measure is: how it is named and printed, and which way is better."""

    title: str
    better: str
    """``higher`` or ``lower``."""
    share: bool = True
    """In [0, 1], printed as a percentage."""
    unit: str = ""


CLASSIFIER = {
    "consistency": Kind("consistency: two random shifts get one class", "higher"),
    "change": Kind("change of the top-1 probability between them", "lower"),
    "variation": Kind("variation of the class's probability along the diagonal", "lower"),
    "withstands": Kind("one class at every shift an adversary may pick", "higher"),
    "probability": Kind("probability of the class", "higher"),
    "agreement": Kind("says what the first network says", "higher"),
    "top1": Kind("accuracy", "higher"),
    "top5": Kind("top-5 accuracy", "higher"),
    "corruption": Kind("error under the common corruptions", "lower"),
}
MAPS = {
    "stability": Kind("stability: output shifted against output of the shifted", "higher", share=False, unit=" dB"),
    "label_agreement": Kind("agreement of the label maps", "higher"),
    "output_variation": Kind("total variation of the output", "lower", share=False),
}
INSIDE = {
    "features": Kind("features move: cosine distance at the sampling sites", "lower"),
    "aliasing": Kind("energy that folds over at the sampling sites", "lower"),
}
KINDS = CLASSIFIER | MAPS | INSIDE


@dataclass(frozen=True)
class Setting:
    """How much is measured."""

    passes: int = 5
    diagonal: int = 32
    reach: int = 2
    feature_images: int = 8
    feature_shifts: int = 8
    batch_size: int = 16
    seed: int = 0
    output: Output = None


@dataclass
class Observation:
    """What was found of one network."""

    values: dict[str, Tensor] = field(default_factory=dict)
    """(I,) by name of the measure."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a measure is missing, by its name."""
    diagonal: Sweep | None = None
    grid: Sweep | None = None
    """At the shifts that an adversary may pick."""
    corruptions: CorruptionErrors | None = None
    kernels: dict[str, float] = field(default_factory=dict)
    """Total variation of the learned filters by the path of the convolution."""
    layers: dict[str, FeatureDistance] = field(default_factory=dict)
    sites: dict[str, float] = field(default_factory=dict)
    """Mean fold-over by the plan's path."""

    def join(self, other: Observation) -> None:
        """Take in what another pass over the same images found."""
        self.values |= other.values
        self.failed |= other.failed
        self.layers |= other.layers
        self.sites |= other.sites
        self.diagonal = self.diagonal or other.diagonal
        self.grid = self.grid or other.grid
        self.corruptions = self.corruptions or other.corruptions


def probe(model: nn.Module, views: Views, output: Output, name: str) -> tuple[int, ...]:
    """The shape of what a model returns for one image.

    Raises:
        AliasfixError: it does not run on the image, or returns what cannot be measured.
    """
    (image,) = views.centres(1)
    shape: tuple[int, ...]
    try:
        with running(model, None, "probe") as run:
            shape = tuple(run.shape(run.place(image[None]), output))
    except AliasfixError as error:
        raise AliasfixError(f"{name}: {error}") from error
    except Exception as error:
        given = "x".join(map(str, image.shape))
        raise AliasfixError(
            f"{name} does not run on images of {given} ({one_line(error)}): give another size"
        ) from error
    if len(shape) not in (2, 4):
        raise AliasfixError(
            f"{name} returned {shape}, neither logits (batch, classes) nor maps (batch, C, h, w): pass output= a "
            f"function that makes them"
        )
    return shape


def diagonal_shifts(views: Views, count: int) -> list[Shift]:
    """Crops from corner to corner of the margin, or circular shifts where there is none; the unshifted is in it.

    >>> len(diagonal_shifts(Views(torch.zeros(1, 3, 40, 40), nn.Identity(), size=32), 8))
    8
    """
    room = views.margin or views.size
    step = max(1, room // count)
    half = room // 2 // step if views.margin else 0
    many = min(count, room // step)
    return [(float(step * (d - half)), float(step * (d - half))) for d in range(many)]


def observe(
    model: nn.Module,
    views: Views,
    wanted: Sequence[str],
    setting: Setting,
    *,
    plan: Plan | None = None,
    layers: Sequence[str] = (),
    reference: Observation | None = None,
) -> Observation:
    """Take the measures that are wanted of one network.

    Args:
        model: the network.
        views: its images.
        wanted: names of `KINDS`.
        setting: how much.
        plan: whose sites aliasing is measured at.
        layers: whose features are followed.
        reference: of the first network, whose classes the second is compared with.
    """
    found = Observation(kernels=measure.filter_variation(model))
    more: dict[str, Any] = {"batch_size": setting.batch_size}
    drawn = more | {"passes": setting.passes, "seed": setting.seed, "output": setting.output}
    size = views.size if views.margin else None

    def consistency() -> dict[str, Tensor | None]:
        if views.margin:
            result = measure.crop_consistency(model, views, size=views.size, margin=views.margin, **drawn)
        else:
            result = measure.circular_consistency(model, views, **drawn)
        return {"consistency": result.agreement, "change": result.change, "top1": result.top1, "top5": result.top5}

    def swept(shifts: Sequence[Shift]) -> Sweep:
        known = reference.diagonal if reference else None
        images = views if views.labelled or known is None else views.targeted(known.target.tolist())
        return measure.sweep(model, images, shifts, size=size, output=setting.output, **more)

    def along() -> dict[str, Tensor | None]:
        found.diagonal = result = swept(diagonal_shifts(views, setting.diagonal))
        first = reference.diagonal if reference else result
        same = None if first is None else (result.top1 == first.top1).float().mean(1)
        return {
            "variation": measure.variation(result),
            "probability": result.probability.mean(1),
            "agreement": same,
        }

    def adversary() -> dict[str, Tensor | None]:
        shifts = measure.grid(min(setting.reach, views.margin // 2) if views.margin else setting.reach)
        found.grid = result = swept(shifts)
        if not views.labelled:
            result = replace(result, target=result.top1[:, shifts.index((0.0, 0.0))])
        return {"withstands": measure.withstands(result).float()}

    def corrupted() -> dict[str, Tensor | None]:
        own = None
        if not views.labelled:  # right is what the network itself says of the clean image
            own = measure.sweep(model, views, [(0.0, 0.0)], size=size, output=setting.output, **more).target.tolist()
        pixels = views.pixels(own)
        found.corruptions = errors = measure.corruption_errors(
            model, pixels, mean=pixels.mean, std=pixels.std, seed=setting.seed, output=setting.output, **more
        )
        return {"corruption": errors.wrong.float().mean((0, 1))}

    def maps() -> dict[str, Tensor | None]:
        return {"stability": measure.stability(model, views.centres(), **drawn)}

    def label_maps() -> dict[str, Tensor | None]:
        return {"label_agreement": measure.label_agreement(model, views.centres(), **drawn)}

    def outputs() -> dict[str, Tensor | None]:
        return {"output_variation": measure.output_variation(model, views.centres(), output=setting.output, **more)}

    def features() -> dict[str, Tensor | None]:
        if not layers:
            raise AliasfixError("the networks have no layer in common before or after a sampling site")
        shifts = measure.every(setting.feature_shifts, setting.feature_shifts)
        few = list(views.centres(setting.feature_images))
        each = [measure.feature_distance(model, [image], layers=layers, shifts=shifts, **more) for image in few]
        between = measure.feature_distance(model, few, layers=layers, shifts=shifts[:1], **more)
        for name in between:
            distance = torch.stack([one[name].distance for one in each])
            found.layers[name] = replace(each[0][name], distance=distance.mean(0), between=between[name].between)
        return {
            "features": torch.stack([torch.stack([d.distance.mean() for d in one.values()]).mean() for one in each])
        }

    def aliasing() -> dict[str, Tensor | None]:
        shares = measure.aliasing(model, views.centres(setting.feature_images), **more)
        each = []
        for step in plan or ():
            at = [shares[name] for name in sampled_at(model, plan, step) if name in shares] if plan else []
            if at:
                site = torch.stack(at).amax(0)
                each.append(site)
                found.sites[step.path] = site.nanmean().item()
        if not each:
            raise AliasfixError("no strided module subsamples at a site of the plan")
        return {"aliasing": torch.stack(each).nanmean(0)}

    tasks: list[tuple[Callable[[], dict[str, Tensor | None]], tuple[str, ...]]] = [
        (consistency, ("consistency", "change", "top1", "top5")),
        (along, ("variation", "probability", "agreement")),
        (adversary, ("withstands",)),
        (corrupted, ("corruption",)),
        (maps, ("stability",)),
        (label_maps, ("label_agreement",)),
        (outputs, ("output_variation",)),
        (features, ("features",)),
        (aliasing, ("aliasing",)),
    ]
    for task, names in tasks:
        names = tuple(name for name in names if name in wanted)
        if not names:
            continue
        try:
            result = task()
            found.values |= {name: value for name in names if (value := result.get(name)) is not None}
        except Exception as error:
            why = str(error) if isinstance(error, AliasfixError) else one_line(error)
            found.failed |= dict.fromkeys(names, why)
    return found
