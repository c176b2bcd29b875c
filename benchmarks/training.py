"""The stages of ``recovery.py`` that train: distillation from the original without labels, fine-tuning with them."""

import tempfile

import digits
import pictures
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import aliasfix

SIDE, STEPS, BATCH = 160, 180, 16  # pixels of a photograph's window; a smaller one than the test's costs half
VIEWS = 24  # crops of each photograph that windows are taken from


class Windows(Dataset):
    """Windows of photographs, (3, SIDE, SIDE), at a random place and size, mirrored or not; no labels."""

    def __init__(self, names, seed):
        self.crops = pictures.crops(names, VIEWS, 2000 + seed)

    def __len__(self):
        return STEPS * BATCH

    def __getitem__(self, _):
        image = self.crops[int(torch.randint(len(self.crops), ()))]
        side = int(SIDE * torch.empty(()).uniform_(0.8, 1.4))
        top, left = torch.randint(image.shape[-1] - side + 1, (2,)).tolist()
        window = image[None, :, top : top + side, left : left + side]
        window = F.interpolate(window, SIDE, mode="bicubic", antialias=True)[0]
        return window.flip(2) if torch.rand(()) < 0.5 else window


class Placed(Dataset):
    """The digits of training, each at a random place, with their labels."""

    def __init__(self):
        (self.images, self.labels), _ = digits.digits()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return digits.placed(self.images[index : index + 1], None)[0], int(self.labels[index])


def for_photographs(names, seed):
    """What follows calibration on photographs, which have no labels."""
    loader = DataLoader(Windows(names, seed), BATCH)
    options = {"epochs": 1, "lr": 4e-5, "warmup_epochs": 0.1}
    return {"distilled": lambda model, original, _: train(model, original, loader, **options)}


def for_digits():
    """What follows calibration on digits: without labels, then with them."""
    loader = DataLoader(Placed(), 64, shuffle=True)
    return {
        "distilled": lambda model, original, _: train(model, original, loader, epochs=4, lr=1e-4),
        "fine-tuned": lambda model, original, _: train(model, original, loader, 0.5, epochs=6, lr=3e-4),
    }


def train(model, original, loader, distillation=1.0, **options):
    """`aliasfix.finetune`; what it leaves is the last of it."""
    with tempfile.TemporaryDirectory() as folder:
        aliasfix.finetune(model, loader, folder, original=original, distillation=distillation, **options)
