"""How the images of a folder become a network's input, once nothing of it is open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from aliasfix.errors import AliasfixError
from aliasfix.images.preprocessing import INTERPOLATIONS, Preprocessing, Transform

IMAGENET = Preprocessing(
    224, None, 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", unreadable="skip", squash=False
)


@dataclass(frozen=True)
class Prepared:
    """A `Preprocessing` of which nothing is open: called with a PIL image, it returns a tensor (channels, size, size).

    Args:
        size, resize, mean, std, interpolation, squash, unreadable, transform: see `Preprocessing`.
        channels: 3, or 1 for grey, which then has the mean of several means.
        sources: where size, crop, mean, std and interpolation come from, in words such as ``from net.pth``.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    squash: bool
    unreadable: str = "skip"
    transform: Transform | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    channels: int = 3

    @property
    def mode(self) -> str:
        """Of PIL: how an image is to be read."""
        return "L" if self.channels == 1 else "RGB"

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one number for each channel."""
        if self.channels == 1:
            return (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        return self.mean * (3 // len(self.mean)), self.std * (3 // len(self.std))

    def differs(self, other: Prepared) -> bool:
        """Whether another gives a network other images."""
        return replace(self, sources={}) != replace(other, sources={})

    def __call__(self, picture: Image.Image) -> Tensor:
        """The network's input.

        Raises:
            AliasfixError: a transform of the user's makes something else than a float tensor (C, H, W).
        """
        if self.transform is None:
            return self.normalised(self.pixels(picture))
        image = self.transform(picture)
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise AliasfixError(f"the transform made {what} of an image: it has to end in a float tensor (C, H, W)")
        return image

    def pixels(self, picture: Image.Image) -> Tensor:
        """The image before normalisation, (channels, size, size) uint8; rounded as torchvision rounds."""
        size, short = self.size, min(picture.size)
        sides = [self.resize if self.squash else int(self.resize * side / short) for side in picture.size]
        picture = picture.resize((sides[0], sides[1]), INTERPOLATIONS[self.interpolation])
        left, top = round((sides[0] - size) / 2), round((sides[1] - size) / 2)
        picture = picture.crop((left, top, left + size, top + size))
        raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return raw.view(size, size, self.channels).permute(2, 0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network is given for the pixels."""
        mean, std = (torch.tensor(values)[:, None, None] for values in self.normalisation)
        return (pixels / 255 - mean) / std

    def __str__(self) -> str:
        if self.transform is not None:
            return "by the transform given"
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        side = "both sides" if self.squash else "shorter side"
        cropped = "" if self.resize == self.size else f" from {side} {self.resize}"
        whole = ", squashed" if self.squash and not cropped else ""
        return (
            f"{self.size}x{self.size}{cropped}{whole}, {self.interpolation}, mean {mean}, std {std}, {self._origin()}"
        )

    def _origin(self) -> str:
        """Where the values come from; the source of the most is that of the rest."""
        by_source: dict[str, list[str]] = {}
        for name, source in self.sources.items():
            by_source.setdefault(source, []).append(name)
        if len(by_source) == 1:
            return next(iter(by_source))
        *first, last = by_source.items()
        return "; ".join([*(f"{', '.join(names)} {source}" for source, names in first), f"the rest {last[0]}"])


def settle(layers: Sequence[tuple[str, Preprocessing]]) -> Prepared:
    """The values of the first of several layers that says them.

    Args:
        layers: each with where it comes from; the last is ImageNet's.

    Raises:
        AliasfixError: values that do not fit together.

    >>> given = Preprocessing(size=48, mean=(0.5, 0.5, 0.5))
    >>> print(settle([("as given", given), ("as for ImageNet", IMAGENET)]))
    48x48, bilinear, mean 0.5 0.5 0.5, std 0.229 0.224 0.225, size, mean as given; the rest as for ImageNet
    """
    for source, layer in layers:
        if layer.transform is not None:
            layers = [(source, layer), (source, IMAGENET)]
            break
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in ("size", "mean", "std", "interpolation", "squash", "unreadable"):
        source, found[name] = next((s, v) for s, layer in layers if (v := getattr(layer, name)) is not None)
        if name not in ("squash", "unreadable"):
            sources[name] = source
    resize, of_crop = _resize(layers, found["size"], sources["size"])
    if resize < found["size"]:
        raise AliasfixError(
            f"a crop of {found['size']} does not fit images resized to {resize}: give resize={found['size']} or more"
        )
    transform = next((layer.transform for _, layer in layers if layer.transform is not None), None)
    if of_crop is not None:
        sources["crop"] = of_crop
    by_rank = {source: rank for rank, (source, _) in enumerate(layers)}
    ordered = dict(sorted(sources.items(), key=lambda item: by_rank[item[1]]))
    return Prepared(**found, resize=resize, transform=transform, sources=ordered)


def _resize(layers: Sequence[tuple[str, Preprocessing]], size: int, of_size: str) -> tuple[int, str | None]:
    """What the shorter side is resized to, and who says it. Nothing is cropped to a size beside which nobody does."""
    for source, layer in layers:
        if layer.resize is None and layer.crop_pct is None:
            continue
        if layer is IMAGENET and source != of_size:
            break
        if layer.crop_pct is not None:
            return math.floor(size / layer.crop_pct + 1e-6), source
        assert layer.resize is not None
        scale = size / layer.size if layer.size and source != of_size else 1
        return round(layer.resize * scale), source
    return size, None
