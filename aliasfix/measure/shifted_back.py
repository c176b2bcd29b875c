"""How well values agree once the output of the shifted input is shifted back: images, depth, features, signals."""

from __future__ import annotations

import torch
from torch import Tensor

from aliasfix.images.inputs import batches
from aliasfix.measure.metric import Metric
from aliasfix.measure.running import running
from aliasfix.measure.shifts import circular
from aliasfix.measure.subject import Subject

MOST = 100.0
"""dB of outputs that are equal but for rounding: their mean with others stays a number."""


def shifted_back(subject: Subject) -> Tensor:
    """PSNR between the shifted output and the output of the shifted input, in dB, over random circular shifts.

    The peak is the range of the output for the unshifted input, so that it needs no unit. The mean over the maps where
    there are several. An output of another size than the input is shifted in proportion, by the phase of its Fourier
    transform; signals by samples.

    Returns:
        (I,), at most 100 dB.

    Source: Zhang 2019 (ICML), Sec. 4.2, "Generation stability".
    """
    setting, views = subject.setting, subject.views
    random = torch.Generator().manual_seed(setting.seed)
    found = []
    with running(subject.model, setting.output, "shifted outputs") as run:
        for images, _ in batches(views.centres(), setting.batch_size, labels=False):
            sides = run.sides(images)
            drawn = [[torch.randint(n, (setting.passes,), generator=random).tolist() for n in sides] for _ in images]
            images = run.place(images)
            own, scores = run.answer(images).maps, torch.zeros(len(images), setting.passes)
            for n in range(setting.passes):
                shifts = [(down[n], right[n]) for down, right in drawn]
                moved = [circular(image, *shift) for image, shift in zip(images, shifts, strict=True)]
                again = run.answer(torch.stack(moved)).maps
                for i, shift in enumerate(shifts):
                    each = [_psnr(a[i], b[i], shift, sides) for a, b in zip(own, again, strict=True)]
                    scores[i, n] = torch.stack(each).mean()
            found.append(scores.mean(1))
    return torch.cat(found)


def _psnr(own: Tensor, again: Tensor, shift: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """Of the outputs (C, sides) for one input and for it shifted."""
    down = shift[0] * own.shape[-2] / sides[0] if sides[0] > 1 else 0
    error = (circular(own, down, shift[1] * own.shape[-1] / sides[1]) - again).square().mean()
    peak = (own.max() - own.min()).square().clamp_min(1e-30)
    return (10 * torch.log10(peak / error.clamp_min(1e-30))).clamp_max(MOST)


PSNR = Metric(
    "psnr",
    "steadiness: output shifted back against the unshifted",
    "higher",
    shifted_back,
    needs=("dense",),
    share=False,
    unit=" dB",
    light=True,
    order=93,
)
