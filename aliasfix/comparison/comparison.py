"""Measure two networks in the same way, and compare the results."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import nn

from aliasfix.comparison.bootstrap import paired
from aliasfix.comparison.classes import imagenet_names
from aliasfix.comparison.observe import Observation, doubts, observe, probe, satisfied, why
from aliasfix.comparison.result import Comparison, Corruptions, Curve, Layer, Measure, Positions
from aliasfix.comparison.sites import example_of, layers, plan_of
from aliasfix.errors import AliasfixError
from aliasfix.families.reading import Returned
from aliasfix.images.inputs import Images
from aliasfix.images.known import Given
from aliasfix.images.views import Views, thumbnail
from aliasfix.measure import CorruptionErrors, Sweep, accuracy_by_position, mean_corruption_error
from aliasfix.measure.adversary import within_reach
from aliasfix.measure.corruptions import corrupted
from aliasfix.measure.features import Followed, followed
from aliasfix.measure.folding import at_sites
from aliasfix.measure.metric import metrics as known_metrics
from aliasfix.measure.running import Output
from aliasfix.measure.subject import Setting, Subject, along_diagonal
from aliasfix.planning.plan import Plan

CURVES = 8
T = TypeVar("T")


def compare(
    a: nn.Module,
    b: nn.Module,
    images: Images,
    *,
    names: tuple[str, str] = ("original", "converted"),
    metrics: Sequence[str] | None = None,
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
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Comparison:
    """Measure how much two networks change when the same images are shifted, and the difference between them.

    Classifiers are measured by consistency, change and variation of the probability, an adversary's shift,
    agreement of the second with the first and, with labels, accuracy; image-to-image networks by stability,
    agreement of label maps and total variation; both by the movement of their features and by fold-over at the
    sampling sites of the plan (`aliasfix.report`). A measure that fails is left out and says why; the others stay.
    Without labels, the probability watched is that of the class the first network gives the unshifted image.

    Args:
        a, b: the networks, such as the original and the converted one.
        images: a folder, or a list, tensor or data loader of normalised images, with or without labels; its ``names``,
            if it has such a list, are what the images are called.
        names: what to call the two.
        metrics: which measures; by default all that apply, without corruptions.
        corruptions: measure errors under the fifteen corruptions of ImageNet-C at five severities, too: slow, and for
            a folder only. Without labels, an error is another class than the network's own of the clean image.
        size: side of the networks' input; by default what is known of the first network, else the images' own.
        margin: pixels around it that crops are shifted in; by default what a folder's images are cropped by. Shifts are
            circular where it is 0, which it also is where they are cropped by less than 8.
        preprocessing: how a folder's images are prepared, an `aliasfix.Preprocessing` or your own transform from a PIL
            image to a tensor (C, H, W); by default as for the first network, as far as that is known, or the second.
        passes: pairs of shifts for each image (consistency, stability).
        diagonal: most shifts along the diagonal.
        reach: an adversary may shift by this many pixels.
        feature_images, feature_shifts: features are followed in this many images over so many shifts on each axis.
        batch_size: most inputs a network is given at a time.
        seed: of the shifts and of the bootstrap.
        output: where the tensor is in what the networks return, see `aliasfix.measure`.
        confidence, resamples: of the paired bootstrap.

    Returns:
        A `Comparison`: print it, read its `verdict`, its ``to_json()``.

    Raises:
        AliasfixError: no images, or networks that do not run on them or return what cannot be measured.

    >>> import torch
    >>> from aliasfix import convert
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(4))
    >>> _ = net(torch.ones(1, 3, 18, 18))
    >>> found = compare(net, convert(net, example_input=torch.ones(1, 3, 18, 18)), torch.randn(6, 3, 18, 18))
    >>> found["aliasing"].better
    True
    """
    setting = Setting(passes, diagonal, reach, feature_images, feature_shifts, batch_size, seed, output)
    with noted() as notes:
        views = Views(images, a, size, margin, preprocessing, beside=b)
        wanted = choose(a, b, views, setting, names, metrics, corruptions)
        doubted = doubts(a, views, wanted, setting, names[0])
        plan, followed = sites(a, b, views, wanted, notes)
        first = observe(a, views, wanted, setting, called=names[0], plan=plan, layers=followed)
        second = observe(b, views, wanted, setting, called=names[1], plan=plan, layers=followed, reference=first)
    return put_together(
        names, views, wanted, first, second, setting, plan, notes,
        confidence=confidence, resamples=resamples, doubt=doubted,
    )  # fmt: skip


def choose(
    a: nn.Module,
    b: nn.Module,
    views: Views,
    setting: Setting,
    names: tuple[str, str],
    metrics: Sequence[str] | None,
    corruptions: bool = False,
) -> list[str]:
    """Return the names of the requested metrics that apply to the outputs of both networks.

    Raises:
        AliasfixError: a measure that does not exist, or networks that cannot be measured.
    """
    known = known_metrics()
    if unknown := [name for name in metrics or () if name not in known]:
        raise AliasfixError(f"no measure {', '.join(unknown)}: choose from {', '.join(known)}")
    first, second = (probe(model, views, setting.output, name) for model, name in zip((a, b), names, strict=True))
    if first.kind != second.kind or [len(one.shape) for one in first.maps] != [len(one.shape) for one in second.maps]:
        raise AliasfixError(f"{names[0]} returned {first} and {names[1]} {second}: they do different things")
    classes = first.tensor.shape[1] if first.kind == "logits" else 0
    if classes and (why := views.fits(classes)):
        views.without_labels(why)
    if classes:
        views.call_classes(imagenet_names(a, classes))
    given = {"labels": views.labelled, "margin": views.margin, "layers": views.are_pictures, "sites": True}
    inputs = {*satisfied(first), *(need for need, there in given.items() if there)}
    apply = [metric for metric in known.values() if inputs.issuperset(metric.needs)]
    asked = set(metrics) if metrics is not None else {metric.name for metric in apply if not metric.optional}
    return [one.name for one in apply if one.name in asked or (corruptions and one.name == "corruption")]


def sites(
    a: nn.Module, b: nn.Module, views: Views, wanted: Sequence[str], notes: list[str]
) -> tuple[Plan | None, list[str]]:
    """The plan, and the layers whose features are followed; without them where the networks cannot be traced."""
    try:
        example = example_of(next(iter(views.centres())), a)
        plan = plan_of(a, b, example)
        follow = any("layers" in known_metrics()[name].needs for name in wanted)
        return plan, layers(plan, (a, b), example) if follow else []
    except Exception as error:
        notes.append(f"no plan: {why(error)}")
        return None, []


def put_together(
    names: tuple[str, str],
    views: Views,
    wanted: Sequence[str],
    first: Observation,
    second: Observation,
    setting: Setting,
    plan: Plan | None,
    notes: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    doubt: str | None = None,
) -> Comparison:
    """Build a comparison from two observations of the same images."""
    measures = []
    for name in wanted:
        failures = {which: found.failed[name] for which, found in zip(names, (first, second), strict=True)
                    if name in found.failed}  # fmt: skip
        if failures or name not in first.values or name not in second.values:
            text = "; ".join(dict.fromkeys(f"{which}: {why}" for which, why in failures.items()))
            measures.append(Measure(name, failed=text or "the first network could not be measured"))
            continue
        one, two = first.values[name], second.values[name]
        if (one.isnan() | two.isnan()).all():
            measures.append(Measure(name, failed="it is not a number for any image"))
            continue
        estimates = paired(one, two, confidence=confidence, resamples=resamples, seed=setting.seed)
        measures.append(Measure(name, *estimates, images=len(one)))
    diagonal = _both(along_diagonal, first, second)
    layers = _both(followed, first, second)
    sites = _both(at_sites, first, second)
    return Comparison(
        names=names,
        images=max((m.images for m in measures), default=0),
        labelled=views.labelled,
        setting=_plain(setting)
        | {
            "images": str(views.prepared or "as given"),
            "size": views.size,
            "margin": views.margin,
            "confidence": confidence,
            "resamples": resamples,
        },
        measures=tuple(measures),
        values={name: (one, second.values[name]) for name, one in first.values.items() if name in second.values},
        passes={run: (one, second.passes[run]) for run, one in first.passes.items() if run in second.passes},
        curves=tuple(_curves(views, *diagonal)) if diagonal else (),
        layers=tuple(_layers(*layers)) if layers else (),
        grid=_positions(views, _both(within_reach, first, second)),
        diagonal=_positions(views, diagonal),
        corruptions=_corruptions(views, _both(corrupted, first, second)),
        kernels=_by_path(first.kernels, second.kernels),
        sites=_by_path(*({path: share.nanmean().item() for path, share in own} for own in sites)) if sites else {},
        plan=plan,
        doubt=doubt,
        notes=tuple(dict.fromkeys([*views.notes, *notes])),
        versions=versions(),
    )


def _plain(setting: Setting) -> dict[str, object]:
    values = dataclasses.asdict(setting)
    said = setting.output if isinstance(setting.output, Returned) else Returned(at=setting.output)
    at = said.at if isinstance(said.at, str | int | None) else getattr(said.at, "__name__", "")
    return values | {"output": at} | ({"kind": said.kind} if said.kind else {})


def _both(run: Callable[[Subject], T], first: Observation, second: Observation) -> tuple[T, T] | None:
    """Return the results of a pass on both networks, None if it did not run on both."""
    one, two = first.of(run), second.of(run)
    return None if one is None or two is None else (one, two)


def _by_path(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {path: (one, second[path]) for path, one in first.items() if path in second}


def _positions(views: Views, swept: tuple[Sweep, Sweep] | None) -> Positions | None:
    """Accuracy at each shift; without labels there is none."""
    if swept is None or not views.labelled:
        return None
    return Positions(swept[0].shifts, *map(accuracy_by_position, swept))


def _corruptions(views: Views, errors: tuple[CorruptionErrors, CorruptionErrors] | None) -> Corruptions | None:
    if errors is None:
        return None
    one, two = (tuple(of.wrong.float().mean((1, 2)).tolist()) for of in errors)
    relative = None if min(one) == 0 else mean_corruption_error(errors[1], errors[0])
    return Corruptions(errors[0].names, one, two, relative, views.labelled)


def _layers(first: Followed, second: Followed) -> Iterator[Layer]:
    for name, own in first.layers.items():
        if name in second.layers:
            yield Layer(name, own.shifts, own.distance, second.layers[name].distance, own.between / 2)


def _curves(views: Views, one: Sweep, two: Sweep) -> Iterator[Curve]:
    """Of the images that move the first network most."""
    order = one.probability.std(1, correction=0).argsort(descending=True, stable=True)[:CURVES].tolist()
    images = enumerate(views.centres(max(order) + 1))
    pictures = {n: thumbnail(image) for n, image in images if n in set(order) and image.ndim == 3}
    for index in order:
        along = tuple(dh for dh, _ in one.shifts)
        curves = [tuple(sweep.probability[index].tolist()) for sweep in (one, two)]
        label = int(one.target[index])
        called = views.classes.get(label, "")
        yield Curve(views.name(index), label, along, curves[0], curves[1], called, pictures.get(index))


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Collect warnings as notes, each once."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    notes += dict.fromkeys(str(warning.message) for warning in caught)


def versions() -> dict[str, str]:
    """Of Python and the packages that matter for the figures."""
    found = {"python": platform.python_version()}
    for package in ("aliasfix", "torch", "torchvision", "timm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
