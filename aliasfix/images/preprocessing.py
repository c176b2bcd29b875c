"""What can be said of how images become a network's input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.reading import MAY_SKIP

Transform: TypeAlias = Callable[[Image.Image], Tensor]
INTERPOLATIONS = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
}


def _numbers(name: str, given: object) -> tuple[float, ...] | None:
    """One number for each channel, or one for all."""
    if given is None:
        return None
    values = (given,) if isinstance(given, int | float) else given
    try:
        numbers = tuple(float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise AliasfixError(f"{name}={given!r}: give one number for each channel, or one for all")
    return numbers


def _check_sides(size: object, resize: object, crop_pct: object) -> None:
    for name, side in (("size", size), ("resize", resize)):
        if side is not None and not (type(side) is int and side > 0):
            raise AliasfixError(f"{name}={side!r}: give a number of pixels, such as 224")
    if resize is not None and crop_pct is not None:
        raise AliasfixError("resize= and crop_pct= say the same: give one of them")
    if crop_pct is not None and not (isinstance(crop_pct, int | float) and 0 < crop_pct <= 1):
        raise AliasfixError(f"crop_pct={crop_pct!r}: give a share of the image, such as 0.875")
    if type(size) is int and type(resize) is int and resize < size:
        raise AliasfixError(f"a crop of {size} does not fit images resized to {resize}: give resize={size} or more")


@dataclass(frozen=True)
class Preprocessing:
    """How the images of a folder become a network's input. What is None is taken from what is known of the network.

    What a converted model was given or trained with is saved with it. Otherwise its checkpoint's ``args`` are asked,
    the ``config.json`` or ``preprocessor_config.json`` beside the weights, then the configuration of its architecture;
    at last ImageNet's values are taken.

    Args:
        size: side of the network's input, in pixels.
        resize: what the shorter side is resized to, before the centre is cropped.
        crop_pct: the same as a share of the resized image, in (0, 1].
        mean: of each channel, subtracted from values in [0, 1].
        std: of each channel, divided by.
        interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``, ``box`` or ``hamming``.
        unreadable: what becomes of images that cannot be read: ``skip``, or ``refuse`` to go on.
        squash: resize both sides to ``resize``, whatever the image's proportions.
        transform: your own, from a PIL image to a tensor (C, H, W), in the place of all of these.

    Raises:
        AliasfixError: a value that makes no sense; says what to give.

    >>> Preprocessing(size=48, mean=0.5).mean
    (0.5,)
    """

    size: int | None = field(default=None, metadata={"metavar": "PIXELS", "help": "Side of the network's input."})
    resize: int | None = field(
        default=None,
        metadata={
            "metavar": "PIXELS",
            "help": "What an image's shorter side is resized to before its centre is cropped.",
        },
    )
    crop_pct: float | None = field(
        default=None, metadata={"metavar": "SHARE", "help": "The same as --size over --resize, such as 0.875."}
    )
    mean: float | Sequence[float] | None = field(
        default=None, metadata={"metavar": "R,G,B", "help": "Subtracted from the channels, whose values are 0 to 1."}
    )
    std: float | Sequence[float] | None = field(
        default=None, metadata={"metavar": "R,G,B", "help": "The channels are divided by it."}
    )
    interpolation: str | None = field(
        default=None, metadata={"choices": tuple(INTERPOLATIONS), "help": "How images are resized."}
    )
    unreadable: str | None = field(
        default=None,
        metadata={
            "choices": MAY_SKIP,
            "help": "What becomes of images that cannot be read; they are skipped if unsaid.",
        },
    )
    squash: bool | None = None
    transform: Transform | None = None

    def __post_init__(self) -> None:
        _check_sides(self.size, self.resize, self.crop_pct)
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if mean and not all(0 <= value <= 1 for value in mean):
            raise AliasfixError(f"mean={self.mean}: it is of values from 0 to 1; of values to 255, divide it by 255")
        if std and not all(value > 0 for value in std):
            raise AliasfixError(f"std={self.std}: give numbers above 0")
        for option in dataclasses.fields(self):
            given, choices = getattr(self, option.name), option.metadata.get("choices")
            if choices and given is not None and given not in choices:
                raise AliasfixError(f"{option.name}={given!r}: choose one of {', '.join(choices)}")
        if self.transform is not None and (beside := list(self.to_dict())):
            raise AliasfixError(f"transform= stands in the place of {', '.join(beside)}: give it alone")

    def to_dict(self) -> dict[str, Any]:
        """What is said, but for what no file can hold."""
        values = {option.name: getattr(self, option.name) for option in dataclasses.fields(self)}
        kept = {name: value for name, value in values.items() if name not in ("transform", "unreadable")}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items() if v is not None}

    @classmethod
    def from_dict(cls, data: object) -> Preprocessing:
        """What `to_dict` returned.

        Raises:
            AliasfixError: something else.
        """
        known = {option.name for option in dataclasses.fields(cls)} - {"transform", "unreadable"}
        if not isinstance(data, dict) or not set(data) <= known or not isinstance(data.get("squash"), bool | None):
            raise AliasfixError(f"it does not say how images are prepared: {data!r:.60}")
        return cls(**data)
