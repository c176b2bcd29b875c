"""How far each layer of a network is from shifting with its input."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import Images, batches, load
from aliasfix.layers.build import is_low_pass_layer
from aliasfix.measure.drawing import Drawing, Panel, maps
from aliasfix.measure.metric import Metric
from aliasfix.measure.running import Runner, running
from aliasfix.measure.shifts import Shift, circular, every
from aliasfix.measure.subject import Subject
from aliasfix.running import watching

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aliasfix.comparison.result import Comparison, Layer


@dataclass(frozen=True)
class FeatureDistance:
    """The distances of one call of one layer, averaged over the images."""

    shifts: tuple[Shift, ...]
    """N shifts (dh, dw) of the input, in its pixels."""
    distance: Tensor
    """(N,), cosine distance between the shifted features and the features of the shifted input, in [0, 2]."""
    between: float
    """Mean cosine distance between the features of consecutive images, in [0, 2]; nan for one image. Half of
    it is the red end of the paper's colour scale."""


def feature_distance(
    model: nn.Module,
    images: Images,
    *,
    layers: Sequence[str] | None = None,
    shifts: Sequence[Shift] | None = None,
    batch_size: int = 64,
) -> dict[str, FeatureDistance]:
    """Cosine distance between Shift(F(x)) and F(Shift(x)), for each layer and each circular shift.

    The features of a layer are shifted by the input's shift times their size over the input's. Where that is
    not whole, the paper upsamples the features; here they are interpolated at their own resolution (see
    `circular`), which asks for less memory and favours no phase. The cosine distance is that between the
    channel vectors at a position, averaged over positions; two zero vectors are at distance 0. Features
    without height and width (after pooling and flattening) are compared as they are.

    At any time there are in memory the features of one image at each layer and of `batch_size` inputs at one.

    Args:
        model: Takes (B, C, H, W); what it returns does not matter.
        images: See `Images`, all of one size; a folder is read at 224 x 224.
        layers: Names of modules, as in `model.named_modules()`; by default all that have no child, which are the
            same before and after a conversion: a layer is followed together with the blur that it was given.
        shifts: N shifts in pixels; by default every whole shift of the height and width.
        batch_size: Most inputs the model is given at a time.

    Returns:
        By name, in order of the calls; the second call of a module is `name#2`. `heat_map(d.shifts,
        d.distance)` is the paper's map.

    Raises:
        AliasfixError: A layer that does not exist or that gives no tensor (B, C, ...), images of several
            sizes, or none.

    Source: Zhang 2019 (ICML), Sec. 3.1, "Shift-equivariance"; Sec. 4.2, "Internal feature distance"; figure 5.

    >>> subsample = nn.MaxPool2d(1, 2)
    >>> found = feature_distance(subsample, torch.eye(4)[None, None], shifts=[(0, 0), (0, 1), (0, 2)])
    >>> [round(d, 3) for d in found[""].distance.tolist()]
    [0.0, 1.0, 0.0]
    """
    modules = dict(model.named_modules())
    names = layers or [name for name, module in modules.items() if _is_leaf(module)]
    if missing := [name for name in names if name not in modules]:
        raise AliasfixError(f"the model has no layer {', '.join(missing)}")
    watch = {name: modules[name] for name in names}
    total: dict[str, Tensor] = {}
    between: dict[str, float] = {}
    previous: dict[str, Tensor] = {}
    unlike: set[str] = set()  # layers whose output has not one entry for each input, or that not every image meets
    side, count = None, 0
    with running(model, None, "features") as run:
        for batch, _ in batches(load(images, 224, model), batch_size, labels=False):
            if side not in (None, batch.shape[-2:]):
                raise AliasfixError(
                    f"images of {tuple(side)} and {tuple(batch.shape[-2:])}: feature distance needs one size"
                )
            side = batch.shape[-2:]
            shifts = shifts or every(*side)
            for image in run.place(batch)[:, None]:
                features = _features(run, watch, image)
                if layers and (missing := [name for name in layers if name not in features]):
                    raise AliasfixError(
                        f"{', '.join(missing)} gave no tensor (B, C) or (B, C, h, w): leave it out of layers="
                    )
                if count:
                    unlike |= _unlike(previous, features)
                for key in previous.keys() - unlike:
                    between[key] = between.get(key, 0) + _cosine_distance(previous[key], features[key]).item()
                for start in range(0, len(shifts), batch_size):
                    chunk = slice(start, start + batch_size)
                    found = _distances(run, watch, image, features, shifts[chunk])
                    for key, distance in found.items():
                        total.setdefault(key, torch.zeros(len(shifts)))[chunk] += distance
                    unlike |= features.keys() - found.keys()
                previous, count = features, count + 1
    pairs = count - 1
    return {
        key: FeatureDistance(tuple(shifts or ()), total[key] / count, between[key] / pairs if pairs else math.nan)
        for key in previous  # in order of the calls
        if key not in unlike
    }


def _is_leaf(module: nn.Module) -> bool:
    return not is_low_pass_layer(module) and all(map(is_low_pass_layer, module.children()))


def _unlike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    """The layers whose features in two images cannot be compared."""
    shared = one.keys() & other.keys()
    return (one.keys() ^ other.keys()) | {key for key in shared if one[key].shape != other[key].shape}


def _features(run: Runner, watch: Mapping[str, nn.Module], image: Tensor) -> dict[str, Tensor]:
    features = {}

    def keep(key: str, value: Tensor) -> None:
        features[key] = value.clone()  # the next layer may work in place

    with _watched(watch, len(image), keep):
        run.forward(image)
    return features


def _distances(
    run: Runner,
    watch: Mapping[str, nn.Module],
    image: Tensor,
    features: Mapping[str, Tensor],
    chunk: Sequence[Shift],
) -> dict[str, Tensor]:
    """(len(chunk),) for each layer; compared as the layers run, so that no layer's features are kept."""
    found = {}
    height, width = image.shape[-2:]

    def compare(key: str, value: Tensor) -> None:
        if key not in features:
            return
        own = features[key]
        if own.ndim == 4:
            down, right = own.shape[-2] / height, own.shape[-1] / width
            own = torch.cat([circular(own, dh * down, dw * right) for dh, dw in chunk])
        found[key] = _cosine_distance(own, value).cpu()

    with _watched(watch, len(chunk), compare):
        run.forward(torch.cat([circular(image, *shift) for shift in chunk]))
    return found


@contextmanager
def _watched(watch: Mapping[str, nn.Module], count: int, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show `see` the output of every call of the layers, the second call of one under `name#2`."""
    calls: Counter[str] = Counter()

    def hook(name: str, module: nn.Module, args: Any, result: Any) -> None:
        if isinstance(result, Tensor) and result.ndim in (2, 4) and len(result) == count:
            calls[name] += 1
            key = name if calls[name] == 1 else f"{name}#{calls[name]}"
            see(key, result.to(torch.promote_types(result.dtype, torch.float32)))

    with watching(watch.items(), hook):
        yield


def _cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 − cos of the channel vectors of (n, C, ...), averaged over positions: (n,)."""
    # for unit vectors half their squared difference, which unlike 1 − cos is exactly 0 for equal ones
    far = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1) / 2
    lone = (a.any(1) != b.any(1)) / 2  # beside a zero vector cos is 0, but the line above gives ½
    return (far + lone).reshape(len(b), -1).mean(1)


@dataclass(frozen=True)
class Followed:
    """The features of several layers, followed in some images."""

    layers: dict[str, FeatureDistance]
    """By layer, means over the images."""
    values: Tensor
    """(I,), mean over the layers and shifts."""


def followed(subject: Subject) -> Followed:
    """Follow the features before and after the sampling sites in a few images."""
    setting = subject.setting
    shifts = every(setting.feature_shifts, setting.feature_shifts)
    few = list(subject.views.centres(setting.feature_images))
    measured = partial(feature_distance, subject.model, layers=subject.layers, batch_size=setting.batch_size)
    each = [measured([image], shifts=shifts) for image in few]
    layers = {}
    if not all(each):
        raise AliasfixError("no layer before or after a sampling site has one output for each image")
    for name, between in measured(few, shifts=shifts[:1]).items():
        if not all(name in one for one in each):
            continue
        distance = torch.stack([one[name].distance for one in each]).mean(0)
        layers[name] = replace(each[0][name], distance=distance, between=between.between)
    means = [torch.stack([d.distance.mean() for d in one.values()]).mean() for one in each]
    return Followed(layers, torch.stack(means))


def figures(found: Comparison) -> Iterator[Drawing]:
    """Draw the distance of each layer at each shift."""
    one, two = found.names
    if found.layers:
        yield Drawing(
            "features",
            "Features against the shift of the input",
            f"Cosine distance between shifted features and features of the shifted image, for {one} (left) and {two} "
            "(right), before and after each sampling site, in order. Dark: they move with the input. Bright: half the "
            "mean distance between two images.",
            tuple(
                Panel(f"features-{n}", f"{layer.name}: {one} and {two}", partial(_maps, layer, found.names), layer.name)
                for n, layer in enumerate(found.layers, 1)
            ),
        )


def _maps(layer: Layer, names: tuple[str, str]) -> Figure:
    red = layer.scale if layer.scale == layer.scale and layer.scale > 0 else max(layer.a.max().item(), 1e-6)
    titles = [f"{name}: {values.mean():.3f}" for name, values in zip(names, (layer.a, layer.b), strict=True)]
    return maps(layer.shifts, (layer.a, layer.b), titles, (0, red), ("0", f"{red:.2g}"))


FEATURES = Metric(
    "features",
    "features move: cosine distance at the sampling sites",
    "lower",
    lambda subject: subject.once(followed).values,
    needs=("layers",),
    light=True,
    order=130,
    figures=figures,
)
