"""Figures of images that a network does not see as it was trained to lead to no conclusion."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import aliasfix
from aliasfix import DoubtWarning
from aliasfix.comparison import page
from aliasfix.measure.doubt import doubt

COUNT = 40
TEN = torch.arange(COUNT) % 10


def off(right: int, labels: Tensor = TEN, classes: int = 10) -> Tensor:
    """Predictions of which so many are right, and the others of all classes."""
    return torch.where(torch.arange(len(labels)) < right, labels, (labels + 1) % classes)


@pytest.mark.parametrize(
    ("top1", "labels", "classes", "told"),
    [
        (torch.zeros(COUNT), None, 10, "gives 40 of 40 images one class"),
        (torch.zeros(COUNT), TEN, 10, "gives 40 of 40 images one class and is right on 4 of 40"),
        (torch.zeros(7), None, 10, None),  # few may well be of one class
        (torch.zeros(COUNT), torch.zeros(COUNT), 10, None),  # and these are
        (torch.where(torch.arange(COUNT) < 30, 0, TEN), None, 10, None),
        (off(4), TEN, 10, "is right on 4 of 40, hardly more than by chance"),
        (off(8), TEN, 10, "is right on 8 of 40"),
        (off(12), TEN, 10, None),
        (off(0, TEN, 1000), TEN, 1000, "is right on 0 of 40"),
        (off(4, TEN, 1000), TEN, 1000, None),
        (off(22, TEN % 2, 2), TEN % 2, 2, "is right on 22 of 40"),
        (off(28, TEN % 2, 2), TEN % 2, 2, None),
        (torch.zeros(COUNT), None, 1, "returns one number, which is always the largest: pass output="),
    ],
)
def test_one_class_and_chance(top1: Tensor, labels: Tensor | None, classes: int, told: str | None) -> None:
    found = doubt("net.pth", top1, labels, classes, "48x48")
    assert (found is None) == (told is None)
    if found is not None and told is not None:
        assert found.startswith(f"net.pth {told}")
        assert (" They are 48x48. Give what it was trained with: --size" in found) == (classes > 1)


class Bright(nn.Module):
    """Tells dark from bright, and aliases; trained on values of mean 0."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv, self.head = nn.MaxPool2d(2), nn.Conv2d(3, 3, 3, 2, 1), nn.Linear(3, 3)
        nn.init.dirac_(self.conv.weight)
        for value in (self.conv.bias, self.head.bias, self.head.weight):
            nn.init.zeros_(value)
        self.head.weight.data[0], self.head.weight.data[1] = 1, -1
        self.head.bias.data[2] = -9

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(self.pool(x)).mean((2, 3)))
        return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, level in (("bright", 200), ("dark", 60), ("none", 20)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            noise = torch.randint(0, 40, (20, 20, 3), generator=torch.Generator().manual_seed(number))
            Image.fromarray((level + noise).byte().numpy()).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


RIGHT = aliasfix.Preprocessing(size=20, mean=0.5, std=0.25)
WRONG = aliasfix.Preprocessing(size=20, mean=0.0, std=0.25)
QUICK = {"passes": 1, "diagonal": 2, "reach": 1, "feature_images": 2, "feature_shifts": 2}


def test_compare_says_so_first_and_concludes_nothing(photos: Path, tmp_path: Path) -> None:
    net = Bright().eval()
    other = aliasfix.convert(net)
    found = aliasfix.compare(net, other, photos, preprocessing=WRONG, **QUICK)
    assert found.doubt == found.as_dict()["doubt"]
    assert found.verdict.startswith("No conclusion: original gives 18 of 18 images one class and is right on 6 of 18")
    assert str(found).startswith("No conclusion: ")
    assert "steadi" not in str(found)
    assert found["top1"].a is not None  # the figures are there nevertheless
    assert '<p class="verdict">No conclusion: ' in page.page(found)
    sweep = aliasfix.compare_filters(net, ["tri3"], photos, preprocessing=WRONG, **QUICK)
    assert sweep.verdict.startswith("No conclusion: ")
    assert str(sweep).startswith("No conclusion: ")
    assert "Take" not in str(sweep)
    fine = aliasfix.compare(net, other, photos, preprocessing=RIGHT, metrics=["consistency"], **QUICK)
    assert fine.doubt is None
    assert "in steadiness" in fine.verdict
    found = aliasfix.compare(net, other, torch.ones(9, 3, 20, 20), metrics=["consistency"], **QUICK)
    assert found.doubt is not None
    assert "preprocessing=" not in found.doubt  # the user has prepared them


def test_calibration_says_so_first(photos: Path) -> None:
    model = aliasfix.convert(Bright().eval())
    with pytest.warns(DoubtWarning, match="the original gives 18 of 18 images one class"):
        found = aliasfix.calibrate(model, photos, preprocessing=WRONG, method="statistics")
    assert str(found).startswith("No conclusion: the original gives 18 of 18")
    assert found.as_dict()["doubt"] == found.doubt
    found = aliasfix.calibrate(aliasfix.convert(Bright().eval()), photos, preprocessing=RIGHT, method="statistics")
    assert found.doubt is None


@pytest.mark.parametrize("validation", [None, 0])
def test_fine_tuning_says_so_before_it_begins(photos: Path, tmp_path: Path, validation: float | None) -> None:
    options = {"validation": validation, "epochs": 1, "augmentation": {"hflip": 0}}
    with pytest.warns(DoubtWarning, match="the original gives .* images one class"):
        found = aliasfix.finetune(aliasfix.convert(Bright()), photos, tmp_path / "run", preprocessing=WRONG, **options)
    assert str(found).startswith("No conclusion: ")
    again = aliasfix.finetune(aliasfix.convert(Bright()), photos, tmp_path / "fine", preprocessing=RIGHT, **options)
    assert again.doubt is None
    labels_alone = {**options, "distillation": 0}  # a new head is at chance before its training
    aliasfix.finetune(aliasfix.convert(Bright()), photos, tmp_path / "new", preprocessing=WRONG, **labels_alone)


def test_a_run_that_goes_on_is_in_doubt_as_it_was(photos: Path, tmp_path: Path) -> None:
    options = {"epochs": 1, "preprocessing": WRONG, "validation": 0.5}
    with pytest.warns(DoubtWarning):
        found = aliasfix.finetune(aliasfix.convert(Bright()), photos, tmp_path / "run", **options)
    again = aliasfix.finetune(aliasfix.convert(Bright()), photos, tmp_path / "run", resume=True, **options)
    assert again.doubt == found.doubt is not None
