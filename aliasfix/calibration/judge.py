"""How close a network is to its original on the images held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aliasfix.calibration import distances
from aliasfix.calibration.held_out import Split
from aliasfix.calibration.result import Scores
from aliasfix.families.reading import OBJECTS, Answer, feature_modules
from aliasfix.measure.average_precision import average_precision, on_image
from aliasfix.measure.iou import classes_of, label_map, mean_iou
from aliasfix.measure.overlap import enlarged, seen, shared
from aliasfix.measure.pitch import CLOSE, cents_apart
from aliasfix.measure.running import Output, running


class Judge:
    """The original's outputs on two views of each image held out, and what to compare with them.

    What agrees is told by the kind of the output: the top-1 class, the label map by its mean IoU, the objects by their
    AP, pitches within half a semitone. Values agree by nothing but their error, as PSNR.

    Args:
        original: the network to be close to.
        given: has two views of every image.
        output: what the networks return.
    """

    def __init__(self, original: nn.Module, given: Split, output: Output) -> None:
        self._network, self._given, self._output = original, given, output
        self._original = self._answers(original)
        self.kind = self._original[0].kind
        self.features = list(feature_modules(original, output)) if self.kind in OBJECTS else []
        self.original = self._scores(original, self._original)

    def __call__(self, model: nn.Module) -> Scores:
        """The scores of a network."""
        return self._scores(model, self._answers(model))

    def _answers(self, model: nn.Module) -> list[Answer]:
        """Of each view, what a network says of all images."""
        found = []
        with running(model, self._output, "calibration") as run:
            for view in self._given.views:
                every = [run.answer(run.place(batch)) for batch in view]
                maps = [torch.cat(parts).cpu() for parts in zip(*(one.maps for one in every), strict=True)]
                objects = [one for answer in every for one in answer.objects]
                found.append(Answer(every[0].kind, tuple(maps), tuple(objects)))
        return found

    def _scores(self, model: nn.Module, answers: Sequence[Answer]) -> Scores:
        if self.kind in OBJECTS:
            error = distances.of_features(self._network, model, self.features, self._given.views[0])
            wanted = [one for answer in self._original for one in answer.objects]
            found = [one for answer in answers for one in answer.objects]
            return Scores(average_precision(found, wanted), error, self._consistency(answers))
        pairs = [
            (
                torch.cat([answer.maps[n] for answer in answers]),
                torch.cat([answer.maps[n] for answer in self._original]),
            )
            for n in range(len(self._original[0].maps))
        ]
        error = sum(distances.share(distances.between(*pair)) for pair in pairs) / len(pairs)
        if self.kind in ("dense", None):
            return Scores(None, error, None, sum(distances.psnr(*pair) for pair in pairs) / len(pairs))
        if self.kind == "logits" and pairs[0][1].shape[1] < 2:
            return Scores(None, error, None)
        return Scores(self._agreement(*pairs[0]), error, self._consistency(answers))

    def _agreement(self, found: Tensor, wanted: Tensor) -> float:
        """Between the tensors of one kind for the same inputs."""
        if self.kind == "label map":
            return mean_iou(label_map(found), label_map(wanted), classes_of(wanted))
        if self.kind == "pitch":
            return (cents_apart(found, wanted) <= CLOSE).float().mean().item()
        return (found.argmax(1) == wanted.argmax(1)).float().mean().item()

    def _consistency(self, answers: Sequence[Answer]) -> float | None:
        """Between the two views of each image, where both see it."""
        given, (one, other) = self._given, answers
        parts = [shared(*pair, given.sides, given.size) for pair in given.pairs]
        if self.kind in OBJECTS:
            moved = [
                [on_image(o, pair[end], part) for o, pair, part in zip(answer.objects, given.pairs, parts, strict=True)]
                for end, answer in enumerate(answers)
            ]
            return average_precision(moved[1], moved[0])
        if self.kind != "label map":
            return self._agreement(other.tensor, one.tensor)
        maps = [
            torch.cat(
                [
                    seen(enlarged(labels, given.size, len(given.sides)), pair[end], part).flatten()
                    for labels, pair, part in zip(label_map(answer.tensor), given.pairs, parts, strict=True)
                ]
            )
            for end, answer in enumerate(answers)
        ]
        return mean_iou(maps[1], maps[0], classes_of(one.tensor))
