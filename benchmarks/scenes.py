"""Digits on photographs: scenes to segment and to detect, of which everything is known."""

import numpy as np
import pictures
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

SIZE, MARGIN = 64, 16
CLASSES = 3  # 0 and its like, by shape: the digits are grouped, so that a small network learns them quickly
GROUPS = {0: 1, 6: 1, 8: 1, 9: 1, 1: 2, 4: 2, 7: 2}  # round ones and straight ones; 2, 3 and 5 are left out


class Scenes:
    """Scenes with one to three digits each: ``images`` (N, 3, side, side) in [0, 1], ``masks`` and ``objects``."""

    def __init__(self, count, seed, side=SIZE, names=None):
        random = np.random.default_rng(seed)
        digits = load_digits()
        kept = [n for n, label in enumerate(digits.target) if int(label) in GROUPS]
        names = names or pictures.NAMES
        backgrounds = [np.asarray(pictures.picture(name)) for name in names]
        self.images, self.masks, self.objects = torch.zeros(count, 3, side, side), [], []
        for image in self.images:
            image.copy_(_background(backgrounds[random.integers(len(backgrounds))], side, random))
            mask, boxes, labels = torch.zeros(side, side, dtype=torch.long), [], []
            for _ in range(random.integers(1, 4)):
                pick = kept[random.integers(len(kept))]
                _place(image, mask, boxes, labels, digits.images[pick] / 16, GROUPS[int(digits.target[pick])], random)
            self.masks.append(mask)
            self.objects.append({"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)})
        self.masks = torch.stack(self.masks)


def _background(photograph, side, random):
    """A square of a photograph, darker than the digits."""
    crop = int(min(photograph.shape[:2]) * random.uniform(0.4, 1))
    top, left = (random.integers(0, n - crop + 1) for n in photograph.shape[:2])
    square = torch.tensor(photograph[top : top + crop, left : left + crop]).permute(2, 0, 1)[None] / 255
    return 0.7 * F.interpolate(square, size=(side, side), mode="area" if crop > side else "bilinear")[0]


def _place(image, mask, boxes, labels, digit, label, random):
    """Put a digit in a colour of its own where no other is, if a few tries find room."""
    size = int(random.integers(16, 25))
    shape = F.interpolate(torch.tensor(digit).float()[None, None], size=(size, size), mode="bicubic")[0, 0].clamp(0, 1)
    for _ in range(8):
        top, left = (int(n) for n in random.integers(0, mask.shape[0] - size + 1, 2))
        window = (slice(top, top + size), slice(left, left + size))
        if mask[window].any():
            continue
        colour = torch.tensor(random.uniform(0.6, 1, 3)).float()[:, None, None]
        image[(slice(None), *window)] = image[(slice(None), *window)] * (1 - shape) + colour * shape
        ink = shape > 0.4
        mask[window][ink] = label
        rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
        (top, bottom), (left, right) = ((int(n) + int(a.min()), int(n) + int(a.max()) + 1) for n, a in
                                        ((top, rows), (left, columns)))  # fmt: skip
        boxes.append([float(left), float(top), float(right), float(bottom)])
        labels.append(label)
        return
