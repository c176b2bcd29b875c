"""Photographs and textures that come with scikit-image and scikit-learn, in two halves that share none."""

import io
from importlib import resources

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

SIZE, MARGIN = 224, 32
NAMES = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "china.jpg", "clock_motion.png"),
    *("coffee.png", "coins.png", "flower.jpg", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)


def halves(fold):
    """The names of the pictures to calibrate on, and of those to test on; the other way round in fold 1."""
    order = torch.randperm(len(NAMES), generator=torch.Generator().manual_seed(0)).tolist()
    names = [NAMES[index] for index in order]
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    return parts if fold == 0 else parts[::-1]


def picture(name):
    """A picture by its file's name."""
    if name in ("china.jpg", "flower.jpg"):
        return Image.fromarray(load_sample_image(name))
    return Image.open(io.BytesIO((resources.files("skimage.data") / name).read_bytes())).convert("RGB")


def crops(names, each, seed):
    """Square crops of 30% to 100% of what fits into each picture, at 256 x 256: (N, 3, 256, 256) in [-1, 1]."""
    random, found = np.random.default_rng(seed), []
    for name in names:
        image = picture(name)
        for _ in range(each):
            side = round(min(image.size) * random.uniform(0.3, 1) ** 0.5)
            found.append(square(image, side, random, SIZE + MARGIN))
    return torch.stack(found)


def varied(names, each, seed):
    """Square crops of 8% to 100%, mirrored, in other colours, brighter and darker: (N, 3, 224, 224) in [-1, 1].

    What a layer returns is known for any image: with the few pictures here, variety is what keeps a fit from learning
    them by heart.
    """
    random, found = np.random.default_rng(seed), []
    for name in names:
        image = picture(name)
        for _ in range(each):
            crop = square(image, round(min(image.size) * random.uniform(0.08, 1) ** 0.5), random, SIZE)
            crop = crop.flip([axis for axis, share in ((1, 0.3), (2, 0.5)) if random.random() < share])
            if random.random() < 0.5:
                crop = crop[random.permutation(3)]
            found.append((crop * random.uniform(0.5, 1.2) + random.uniform(-0.2, 0.2)).clamp(-1, 1))
    return torch.stack(found)


def square(image, side, random, size):
    """A crop of a picture at a random place, resized: (3, size, size) in [-1, 1]."""
    left, top = (int(random.integers(length - side + 1)) for length in image.size)
    crop = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.tensor(np.array(crop)).permute(2, 0, 1) / 127.5 - 1


def view(images, top, left):
    """The 224 x 224 window of each image at a corner."""
    return images[:, :, top : top + SIZE, left : left + SIZE]


def each_view(images, corners):
    """The windows at a corner of its own for each image."""
    return torch.cat([view(image[None], *corner) for image, corner in zip(images, corners.tolist(), strict=True)])
