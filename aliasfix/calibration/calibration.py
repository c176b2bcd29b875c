"""The public calibration: original and converted network in step, layer by layer, on images without labels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from aliasfix import surgery
from aliasfix.calibration import least_squares, statistics
from aliasfix.calibration.behind import behind
from aliasfix.calibration.distances import errors
from aliasfix.calibration.held_out import Split, split
from aliasfix.calibration.judge import Judge
from aliasfix.calibration.passes import Correction, correct, once
from aliasfix.calibration.result import Calibration, Scores, Site
from aliasfix.conversion import is_calibrated, unblurred
from aliasfix.errors import AliasfixError, DoubtWarning, explaining
from aliasfix.files.record import digest_of_weights
from aliasfix.images.inputs import Images
from aliasfix.images.known import Given, remember, said
from aliasfix.measure.doubt import doubt
from aliasfix.measure.running import Output, running
from aliasfix.running import where
from aliasfix.text.progress import Work

METHODS = ("statistics", "least-squares", "both", "every-layer")


def calibrate(
    model: nn.Module,
    images: Images,
    original: nn.Module | None = None,
    method: str = "auto",
    *,
    size: int | None = None,
    preprocessing: Given = None,
    batch_size: int = 64,
    output: Output = None,
) -> Calibration:
    """Adapt the weights of a converted network to its blurs, in place, without labels and without gradients.

    ``statistics`` gives every channel the mean and variance back that it has in the original; ``least-squares`` fits
    the convolutions behind the blurs to what they return in the original; ``both`` does the second, then the first,
    layer by layer; ``every-layer`` does both and fits all convolutions, which takes several times as long. A quarter
    of the images is held out to tell whether it helped.

    Args:
        model: a converted network; its weights change, and nothing else.
        images: a folder, or a list, data loader or other iterable of (C, H, W) or (B, C, H, W) tensors that can be
            iterated again, scaled and normalised as in training; labels are not looked at. Signals (T,) or (C, T) and
            volumes (C, D, H, W) do as well; a tensor's first axis is the batch. 64 to 256 are enough.
        original: the network before conversion; by default what `aliasfix.revert` gives of the model.
        method: ``statistics``, ``least-squares``, ``both``, ``every-layer``; ``auto`` takes what agrees best with the
            original on the images held out, and leaves the model as it is where nothing is better than that.
        size: side of the network's input, see `aliasfix.compare`.
        preprocessing: how a folder's images are prepared, see `aliasfix.compare`; `aliasfix.save` keeps it.
        batch_size: most images in a network at a time, which bounds the memory.
        output: what the networks return, where they are of no family that is known: a key, an index, a function, or an
            `aliasfix.Returned`. What agrees with the original is judged by its kind.

    Returns:
        A `Calibration`: what was done, how close the network is to the original before and after.

    Raises:
        AliasfixError: the model is not a converted one, or its phase adapts: then calibrate it at fixed phase and load
            those weights; it was calibrated before and its original is not given; fewer
            than eight images, or images that the network does not take or that are not finite. The model is left as
            it was, also when the calibration is interrupted.

    Warns:
        DoubtWarning: the original gives nearly all images one class, or is no better than chance at their labels.

    >>> import aliasfix, torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    >>> converted = aliasfix.convert(net)
    >>> images = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> found = aliasfix.calibrate(converted, images, method="statistics")
    >>> found.method, found.images, found.held_out
    ('statistics', 12, 4)
    """
    plan = surgery.executed(model)
    if plan is None:
        raise AliasfixError("calibrate takes a converted model: convert it first")
    if plan.recipe.phase == "adaptive":
        raise AliasfixError(
            "calibrate compares layers sample by sample, and the samples that a model with phase='adaptive' keeps are "
            "others: calibrate a conversion with phase='fixed', and load its state_dict into this model"
        )
    if method not in ("auto", *METHODS):
        raise AliasfixError(f"no method {method!r}: choose from auto, {', '.join(METHODS)}")
    if original is None:
        original = reference(model)
    _check_original(original, model)
    given = split(images, model, size, batch_size, preprocessing)
    state = copy.deepcopy(model.state_dict())
    # calibrated once more, the original's weights are still those from before the first time
    weights = plan.calibration["before"] if plan.calibration is not None else digest_of_weights(state)
    try:
        found, taken = _best(model, original, given, METHODS if method == "auto" else (method,), method, output)
        model.load_state_dict(taken)
    except BaseException:  # an interrupt, too
        model.load_state_dict(state)
        raise
    if found.method != "none":
        done = {"method": found.method, "images": found.images, "agreement": found.after.agreement, "before": weights}
        surgery.note_calibration(model, done)
    if isinstance(images, str | Path):
        remember(model, said(preprocessing, size), "as given")
    return found


def reference(model: nn.Module) -> nn.Module:
    """The original of a converted network, which has its weights.

    Raises:
        AliasfixError: the weights were calibrated: they are no longer the original's.
    """
    if is_calibrated(model):
        raise AliasfixError("the model was calibrated, which changed its weights: give original=, the network before")
    return unblurred(model)


def _best(
    model: nn.Module, original: nn.Module, given: Split, methods: Sequence[str], asked: str, output: Output
) -> tuple[Calibration, dict[str, Tensor]]:
    """Try methods, each from the weights as they are; the last thing tried may stay on the model."""
    start = copy.deepcopy(model.state_dict())
    example = given.fit[0][:2].to(where(model, given.fit[0]))
    for network, name in ((original, "the original"), (model, "the model")):
        _runs(network, name, example)
    doubted = _doubt(original, given, output)
    judge = Judge(original, given, output)
    scores: dict[str, Scores] = {"original": judge.original, "before": judge(model)}
    with running(original, None, "calibration"):
        paths = once(original, example, (statistics.Normalisation, *statistics.AFFINE), judge.features)
    fed = set(behind(model, example))
    layers = [path for path in paths if path in fed and isinstance(model.get_submodule(path), _FITTED)]
    before = errors(original, model, layers, given.views[0])
    notes, best, state = list(given.notes), "before", start
    with Work("calibrating", len(methods), "method") as work:
        for method in methods:
            work.advance(0, method)
            model.load_state_dict(start)
            corrections = _corrections(model, paths, layers, method, notes)
            if corrections:
                with running(model, None, "calibration"), running(original, None, "calibration"):
                    correct(original, model, corrections, (batch.to(where(model, batch)) for batch in given.fit))
                scores[method] = judge(model)
                if asked != "auto" or scores[method].rank > scores[best].rank:
                    best, state = method, copy.deepcopy(model.state_dict())
            else:
                notes.append(f"{method}: no layer that it applies to")
            work.advance()
    model.load_state_dict(state)
    after = errors(original, model, layers, given.views[0])
    sites = tuple(Site(path, before[path], after[path]) for path in layers)
    name = "none" if best == "before" else best
    notes = list(dict.fromkeys(notes))
    return Calibration(name, given.images, given.held_out, scores, sites, tuple(notes), doubted), state


def _doubt(original: nn.Module, given: Split, output: Output) -> str | None:
    """Why agreement with the original says nothing on these images; None where it does, or there are no classes."""
    with running(original, output, "classes") as run:
        if run.answer(run.place(given.fit[0][:1])).kind != "logits":
            return None
        logits = torch.cat([run.logits(run.place(batch)).cpu() for batch in (*given.fit, *given.views[0])])
    labels = given.labels if given.labels is not None and int(given.labels.max()) < logits.shape[1] else None
    text = doubt("the original", logits.argmax(1), labels, logits.shape[1], given.prepared)
    if text is not None:
        warnings.warn(text, DoubtWarning, stacklevel=2)
    return text


_FITTED = (nn.modules.conv._ConvNd, nn.Linear)


def _corrections(
    model: nn.Module, paths: Sequence[str], layers: Sequence[str], method: str, notes: list[str]
) -> list[Correction]:
    """What a method does to which of the layers, in the order in which they run."""
    made: list[Correction] = []
    fitted = []
    # a normalisation behind a convolution takes up the mean, if its own statistics are matched
    normalised = method != "least-squares" and any(
        isinstance(model.get_submodule(path), statistics.Normalisation) for path in paths
    )
    if method != "statistics":
        every = layers and method == "every-layer"
        for path in paths[paths.index(layers[0]) :] if every else layers:
            module = model.get_submodule(path)
            if not isinstance(module, least_squares.Convolution):
                continue
            if why := least_squares.why_not(module):
                notes.append(f"{path} is not fitted: {why}")
                continue
            made.append(least_squares.LeastSquares(path, module, centred=normalised or module.bias is not None))
            fitted.append(path)
    if method != "least-squares":
        made += statistics.corrections(model, [path for path in paths if path not in fitted])
    return made


def _runs(model: nn.Module, name: str, example: Tensor) -> None:
    given = "x".join(map(str, example.shape[1:]))
    explained = explaining(f"{name} does not run on images of {given}", "give others, or another size")
    with explained, running(model, None, "calibration") as run:
        run.forward(run.place(example))


def _check_original(original: nn.Module, model: nn.Module) -> None:
    if surgery.executed(original) is not None:
        raise AliasfixError("original= is a converted network: give the one before conversion")
    ours, theirs = ({key: value.shape for key, value in m.state_dict().items()} for m in (model, original))
    if ours != theirs:
        other = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
        raise AliasfixError(f"original= is another network: {other} is not alike in the two")
    here, there = ({tensor.device for tensor in m.state_dict().values()} for m in (model, original))
    if here != there:
        raise AliasfixError(f"original= is on {', '.join(map(str, there))}, the model on {', '.join(map(str, here))}")
