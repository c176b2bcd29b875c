"""Networks whose output is an image or a label map: does it move with the input?"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aliasfix.images.inputs import Images, batches, load
from aliasfix.measure.metric import Metric
from aliasfix.measure.running import Model, Output, running
from aliasfix.measure.shifts import circular


def stability(
    model: Model,
    images: Images,
    *,
    peak: float = 1,
    passes: int = 5,
    batch_size: int = 16,
    seed: int = 0,
    output: Output = None,
) -> Tensor:
    """PSNR between the shifted output and the output of the shifted input, over random circular shifts.

    E PSNR(Shift(F(X)), F(Shift(X))). The shifts are drawn from all whole shifts of the height and width (the
    paper, for simplicity, shifts horizontally). An output of another size than the input is shifted in
    proportion (see `circular`).

    Args:
        model: Takes (B, C, H, W), returns (B, D, h, w).
        images: See `Images`; what comes beside an image is ignored; a folder is read at 224 x 224.
        peak: Range of the output's values: 1 for [0, 1], 2 for [−1, 1].
        passes: Shifts for each image.
        batch_size: Most inputs the model is given at a time.
        seed: Of the shifts.
        output: Where the maps are in what the model returns.

    Returns:
        (I,), in dB; inf where the output shifts exactly.

    Raises:
        AliasfixError: No images, or an unusable output.

    Source: Zhang 2019 (ICML), Sec. 4.2, "Generation stability".

    >>> stability(torch.nn.Identity(), torch.rand(2, 3, 8, 8))
    tensor([inf, inf])
    """

    def psnr(own: Tensor, again: Tensor, dh: float, dw: float, side: tuple[int, int]) -> Tensor:
        down, right = dh * own.shape[-2] / side[0], dw * own.shape[-1] / side[1]
        error = (circular(own, down, right) - again).square().mean()
        return 10 * torch.log10(peak**2 / error)

    return _shifted(model, images, psnr, passes, batch_size, seed, output)


def label_agreement(
    model: Model,
    images: Images,
    *,
    passes: int = 5,
    batch_size: int = 16,
    seed: int = 0,
    output: Output = None,
) -> Tensor:
    """Share of pixels given the same label whether the input is shifted or the label map.

    The label map is the argmax over channels, or the sign of a single channel. One smaller or larger than the
    input is brought to its size first (nearest), so that every shift is a whole one.

    Args:
        model: Takes (B, C, H, W), returns scores (B, classes, h, w).
        images: See `Images`; what comes beside an image is ignored; a folder is read at 224 x 224.
        passes: Shifts for each image.
        batch_size: Most inputs the model is given at a time.
        seed: Of the shifts.
        output: Where the scores are in what the model returns.

    Returns:
        (I,), in [0, 1]; 1 where the label map shifts exactly.

    Raises:
        AliasfixError: No images, or an unusable output.

    Source: classification consistency (Zhang 2019, ICML, Sec. 4.2) at each pixel of the shifted label map.

    >>> label_agreement(torch.nn.Identity(), torch.rand(2, 3, 8, 8))
    tensor([1., 1.])
    """

    def agreement(own: Tensor, again: Tensor, dh: float, dw: float, side: tuple[int, int]) -> Tensor:
        return (circular(_labels(own, side), dh, dw) == _labels(again, side)).float().mean()

    return _shifted(model, images, agreement, passes, batch_size, seed, output)


def total_variation(maps: Tensor, axes: int = 2) -> Tensor:
    """Mean absolute difference between vertical neighbours plus that between horizontal ones.

    Σ |x(i+1, j) − x(i, j)| + |x(i, j+1) − x(i, j)| over the pixels that have the neighbour, divided by their
    number on each axis.

    Args:
        maps: (B, ..., H, W), both axes 2 or longer.
        axes: 2, or 1 for signals (B, ..., T).

    Returns:
        (B,), in the unit of the maps per pixel; 0 for a constant.

    Source: Rudin, Osher & Fatemi 1992 (Physica D), anisotropic; Zhang 2019 (ICML) reports it for generated
    images.

    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([1.])
    """
    differences = [maps.diff(dim=axis).abs().flatten(1).mean(1) for axis in range(-axes, 0)]
    return torch.stack(differences).sum(0)


def output_variation(model: Model, images: Images, *, batch_size: int = 16, output: Output = None) -> Tensor:
    """Total variation of what an image-to-image model makes of each image.

    Args:
        model: Takes (B, C, H, W), returns (B, D, h, w).
        images: See `Images`; what comes beside an image is ignored; a folder is read at 224 x 224.
        batch_size: Most inputs the model is given at a time.
        output: Where the maps are in what the model returns.

    Returns:
        (I,), see `total_variation`.

    Raises:
        AliasfixError: No images, or an unusable output.

    >>> output_variation(torch.nn.Identity(), torch.ones(1, 3, 4, 4))
    tensor([0.])
    """
    with running(model, output, "total variation") as run:
        found = [
            total_variation(run.maps(run.place(batch)), run.axes(batch)).cpu()
            for batch, _ in batches(load(images, 224, model), batch_size, labels=False)
        ]
    return torch.cat(found)


def _labels(scores: Tensor, side: tuple[int, int]) -> Tensor:
    labels = scores.argmax(0) if len(scores) > 1 else scores[0] > 0
    flat = labels.reshape(1, -1, labels.shape[-2] if labels.ndim > 1 else 1, labels.shape[-1]).float()
    return F.interpolate(flat, size=side, mode="nearest")[0]


def _shifted(
    model: Model,
    images: Images,
    compare: Callable[[Tensor, Tensor, float, float, tuple[int, int]], Tensor],
    passes: int,
    batch_size: int,
    seed: int,
    output: Output,
) -> Tensor:
    """Mean over the shifts of `compare(F(x), F(Shift(x)), dh, dw, (H, W))`, for each image."""
    random = torch.Generator().manual_seed(seed)
    found = []
    with running(model, output, "shifted outputs") as run:
        for batch, _ in batches(load(images, 224, model), batch_size, labels=False):
            side = run.sides(batch)
            # all draws of one image before the next image's: they do not depend on how images are batched
            drawn = [[torch.randint(n, (passes,), generator=random).tolist() for n in side] for _ in batch]
            batch = run.place(batch)
            maps = run.maps(batch)
            scores = torch.zeros(len(batch), passes)
            for n in range(passes):
                shifts = [(dh[n], dw[n]) for dh, dw in drawn]
                moved = torch.stack([circular(image, *shift) for image, shift in zip(batch, shifts, strict=True)])
                again = run.maps(moved)
                for i, shift in enumerate(shifts):
                    scores[i, n] = compare(maps[i], again[i], *shift, side)
            found.append(scores.mean(1))
    return torch.cat(found)


STABILITY = Metric(
    "stability",
    "stability: output shifted against output of the shifted",
    "higher",
    lambda subject: stability(subject.model, subject.views.centres(), **subject.drawn),
    needs=("maps", "values"),
    share=False,
    unit=" dB",
    order=100,
)
LABEL_AGREEMENT = Metric(
    "label_agreement",
    "agreement of the label maps",
    "higher",
    lambda subject: label_agreement(subject.model, subject.views.centres(), **subject.drawn),
    needs=("maps", "classes"),
    order=110,
)
OUTPUT_VARIATION = Metric(
    "output_variation",
    "total variation of the output",
    "lower",
    lambda subject: output_variation(
        subject.model, subject.views.centres(), batch_size=subject.setting.batch_size, output=subject.setting.output
    ),
    needs=("maps",),
    share=False,
    order=120,
)
