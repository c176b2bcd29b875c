"""What a model returned is read, or one line says what it was and how to describe it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aliasfix
from aliasfix.errors import AliasfixError
from aliasfix.families import Returned, family, read

IMAGES = torch.zeros(2, 3, 8, 8)
ONE = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.ones(1), "labels": torch.ones(1).long()}


class Says(nn.Module):
    """Returns what it is told to."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        self.conv(x)
        return self.what


@pytest.mark.parametrize(
    ("result", "output", "kind"),
    [
        (torch.zeros(2, 10), None, "logits"),
        (torch.zeros(2, 4, 8, 8), None, None),
        (torch.zeros(2, 4, 8, 8), Returned("label map"), "label map"),
        ({"out": torch.zeros(2, 4, 8, 8)}, Returned("dense", at="out"), "dense"),
        ([torch.zeros(2, 10), None], 0, "logits"),
        ([ONE, ONE], None, "boxes"),
        ([ONE | {"keypoints": torch.zeros(1, 5, 3)}] * 2, None, "keypoints"),
        ({"found": [ONE, ONE]}, "found", "boxes"),
    ],
)
def test_the_kind_is_told_or_seen(result: Any, output: Any, kind: str | None) -> None:
    assert read(None, result, IMAGES, output).kind == kind


@pytest.mark.parametrize(
    ("result", "output", "words"),
    [
        ({"a": torch.zeros(2, 4), "b": 0}, None, "a dict with 'a', 'b': pass output='a', or another key"),
        ({"a": torch.zeros(2, 4)}, "b", "output='b' is not in the dict that the model returned: a dict with 'a'"),
        ((torch.zeros(2, 4),), 3, "output=3 is not in the tuple that the model returned: a tuple of 1: pass output=0"),
        (torch.zeros(2, 4), "logits", r"output='logits' is not in the Tensor .*: a tensor \(2, 4\): leave output= out"),
        (object(), None, r"a object: pass output= a function that makes one tensor .* dict of boxes \(n, 4\)"),
        ([ONE], None, "not 1 of them for 2"),
        ([ONE | {"boxes": torch.zeros(3, 4)}] * 2, None, r"boxes \(3, 4\), scores \(1,\), labels \(1,\), not"),
        (torch.zeros(3, 4), None, r"\(3, 4\) for a batch of 2 images"),
        (torch.full((2, 4), torch.nan), None, "NaN for 2 of 2 inputs"),
    ],
)
def test_what_cannot_be_read_is_described(result: Any, output: Any, words: str) -> None:
    with pytest.raises(AliasfixError, match=words) as caught:
        read(None, result, IMAGES, output)
    assert "\n" not in str(caught.value)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AliasfixError, match=r"no kind of output 'masks': choose from logits, label map"):
        Returned("masks")  # type: ignore[arg-type]


def test_a_family_that_returns_something_else_says_so() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(AliasfixError, match=r"segmentation networks of torchvision do not return a list as LRASPP did"):
        read(model, [1], IMAGES)


def test_compare_says_how_to_describe_what_is_unknown() -> None:
    model = Says({"mask": torch.zeros(1, 2, 8, 8)})
    with pytest.raises(AliasfixError, match=r"original: the model returned a dict with 'mask': pass output='mask'"):
        aliasfix.compare(model, model, IMAGES)


def test_a_detector_without_a_backbone_is_asked_for_its_features() -> None:
    original = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    model = aliasfix.convert(original, example_input=torch.rand(2, 3, 16, 16))
    seen = torch.rand(8, 3, 16, 16)
    with pytest.raises(AliasfixError, match=r"no module called backbone: pass output=aliasfix.Returned\('boxes', fea"):
        aliasfix.calibrate(model, seen, output=lambda maps: [ONE] * len(maps))
    described = Returned(at=lambda maps: [ONE] * len(maps), features=["2"])
    found = aliasfix.calibrate(model, seen, output=described)
    assert found.after.error <= found.before.error
    assert found.after.agreement == pytest.approx(1)


def test_another_package_may_add_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = family.Family("mine", ("*.Says",), "dense", lambda model, result, images: result["depth"])
    monkeypatch.setattr(family, "families", lambda: [mine])
    monkeypatch.setattr(family, "_known", {})
    model = Says({"depth": torch.zeros(2, 1, 8, 8)})
    assert read(model, model(IMAGES), IMAGES).kind == "dense"
