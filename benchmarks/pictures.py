"""Photographs and textures that come with scikit-image and scikit-learn, in two halves that share none."""

import numpy as np
import torch

from aliasfix.pictures import NAMES, picture, square, varied

__all__ = ["crops", "each_view", "halves", "picture", "varied", "view"]

SIZE, MARGIN = 224, 32


def halves(fold):
    """The names of the pictures to calibrate on, and of those to test on; the other way round in fold 1."""
    order = torch.randperm(len(NAMES), generator=torch.Generator().manual_seed(0)).tolist()
    names = [NAMES[index] for index in order]
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    return parts if fold == 0 else parts[::-1]


def crops(names, each, seed):
    """Square crops of 30% to 100% of what fits into each picture, at 256 x 256: (N, 3, 256, 256) in [-1, 1]."""
    random, found = np.random.default_rng(seed), []
    for name in names:
        image = picture(name)
        for _ in range(each):
            side = round(min(image.size) * random.uniform(0.3, 1) ** 0.5)
            found.append(square(image, side, random, SIZE + MARGIN))
    return torch.stack(found)


def view(images, top, left):
    """The 224 x 224 window of each image at a corner."""
    return images[:, :, top : top + SIZE, left : left + SIZE]


def each_view(images, corners):
    """The windows at a corner of its own for each image."""
    return torch.cat([view(image[None], *corner) for image, corner in zip(images, corners.tolist(), strict=True)])
