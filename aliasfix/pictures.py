"""Photographs and textures that come with scikit-image and scikit-learn, for `aliasfix demo`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from torch import Tensor

NAMES = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "china.jpg", "clock_motion.png"),
    *("coffee.png", "coins.png", "flower.jpg", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)


def picture(name: str) -> Any:
    """A picture by its file's name, as a PIL image in RGB.

    Raises:
        ImportError: the package that it comes with is missing.
    """
    from PIL import Image

    if name in ("china.jpg", "flower.jpg"):
        from sklearn.datasets import load_sample_image

        return Image.fromarray(load_sample_image(name))
    return Image.open(io.BytesIO((resources.files("skimage.data") / name).read_bytes())).convert("RGB")


def varied(names: Sequence[str], each: int, seed: int, size: int = 224) -> Tensor:
    """Square crops of 8% to 100%, mirrored, in other colours, brighter and darker.

    What a layer returns is known for any image: with the few pictures here, variety is what keeps a fit from learning
    them by heart.

    Args:
        names: of the pictures.
        each: how many crops of each.
        seed: of all that is drawn.
        size: side of the crops, in pixels.

    Returns:
        (N, 3, size, size) in [-1, 1].
    """
    import numpy as np

    random, found = np.random.default_rng(seed), []
    for name in names:
        image = picture(name)
        for _ in range(each):
            crop = square(image, round(min(image.size) * random.uniform(0.08, 1) ** 0.5), random, size)
            crop = crop.flip([axis for axis, share in ((1, 0.3), (2, 0.5)) if random.random() < share])
            if random.random() < 0.5:
                crop = crop[random.permutation(3)]
            found.append((crop * random.uniform(0.5, 1.2) + random.uniform(-0.2, 0.2)).clamp(-1, 1))
    return torch.stack(found)


def square(image: Any, side: int, random: Any, size: int) -> Tensor:
    """A crop of a picture at a random place, resized: (3, size, size) in [-1, 1]."""
    import numpy as np
    from PIL import Image

    left, top = (int(random.integers(length - side + 1)) for length in image.size)
    crop = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.tensor(np.array(crop)).permute(2, 0, 1) / 127.5 - 1
