"""The stages of ``recovery.py`` that train: distillation from the original without labels, fine-tuning with them."""

import tempfile

import digits
import pictures
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import aliasfix

SIDE, STEPS, BATCH = 160, 500, 16  # pixels of a photograph's window; a smaller one than the test's costs half
VIEWS = 60  # crops of each photograph that windows are taken from


class Windows(Dataset):
    """Windows of varied crops of photographs, (3, SIDE, SIDE), every other one blended with another; no labels."""

    def __init__(self, names, seed):
        self.crops = pictures.varied(names, VIEWS, 2000 + seed)

    def __len__(self):
        return STEPS * BATCH

    def __getitem__(self, index):
        if index % 2:
            return torch.lerp(self.window(), self.window(), torch.rand(()))
        return self.window()

    def window(self):
        image = self.crops[int(torch.randint(len(self.crops), ()))]
        side = int(torch.randint(SIDE, image.shape[-1] + 1, ()))
        top, left = torch.randint(image.shape[-1] - side + 1, (2,)).tolist()
        window = image[None, :, top : top + side, left : left + side]
        return F.interpolate(window, SIDE, mode="bilinear", antialias=True)[0]


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
    options = {"epochs": 1, "lr": 1e-4, "warmup_epochs": 0.05, "temperature": 8}
    return {"distilled": lambda model, original, _: train(model, original, loader, **options)}


def for_digits():
    """What follows calibration on digits: without labels, then with them."""
    loader = DataLoader(Placed(), 64, shuffle=True)
    return {
        "distilled": lambda model, original, _: train(model, original, loader, epochs=4, lr=1e-4),
        "fine-tuned": lambda model, original, _: train(
            model, original, loader, 0.5, epochs=8, lr=3e-4, consistency=1.0
        ),
    }


def train(model, original, loader, distillation=1.0, **options):
    """`aliasfix.finetune`; what it leaves is the last of it."""
    with tempfile.TemporaryDirectory() as folder:
        aliasfix.finetune(model, loader, folder, original=original, distillation=distillation, **options)
