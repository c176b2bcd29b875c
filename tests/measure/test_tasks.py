"""The measures of label maps, objects, values and pitches, on networks whose steadiness is known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aliasfix
from aliasfix.families import Returned
from aliasfix.measure.jitter import follow, jumps

pytest.importorskip("torchmetrics")
QUICK: dict[str, Any] = {"passes": 4, "diagonal": 9, "size": 32, "margin": 12, "resamples": 10}


class Finds(nn.Module):
    """Finds the only bright rectangle of an image, and snaps its place to a grid."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 3, 2)
        self.grid = grid

    def forward(self, images: Tensor) -> Any:
        found = []
        for image in images[:, 0]:
            rows, columns = (image > 0.5).nonzero().unbind(1)
            if not len(rows):
                found.append({"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()})
                continue
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).div(self.grid).floor()
            box = box[None] * float(self.grid)
            points = box.view(1, 2, 2)
            found.append({"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1).long(), "keypoints": points})
        return found


class Snaps(nn.Module):
    """Scores of two classes, bright and dark, of every n-th pixel."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        few = x[..., :: self.step, :: self.step]
        back = few.repeat_interleave(self.step, -1).repeat_interleave(self.step, -2)
        return torch.cat([back - 0.5, 0.5 - back], 1)


def scenes() -> Tensor:
    """(6, 1, 44, 44), each with a bright rectangle in the middle."""
    images = torch.zeros(6, 1, 44, 44)
    for n, image in enumerate(images):
        image[:, 17 + n % 3 : 27, 16 : 25 + n % 2] = 1
    return images


def test_objects_on_a_grid_jump_by_what_the_grid_says() -> None:
    steady, snapping = Finds(1).eval(), Finds(4).eval()
    found = aliasfix.compare(steady, snapping, scenes(), metrics=ROWS["objects"], **QUICK)
    assert {one.name: one.failed for one in found.measures if one.failed} == {}
    assert found["maisc"].a.mean == 1
    assert found["maisc"].b.mean < 0.6
    # over four frames a place on the grid moves 1, 1, 1 and -3 pixels on the image
    assert (found["box_jitter"].a.mean, found["box_jitter"].b.mean) == (0, pytest.approx(1.5))
    assert found["keypoint_jitter"].b.mean == pytest.approx(1.5)
    assert found["score_variation"].b.mean == 0
    assert found["found_again"].b.mean == 1
    assert "less steady, object consistency (mAISC)" in found.verdict


def test_an_object_that_is_lost_is_not_found_again() -> None:
    one = {"boxes": torch.tensor([[2.0, 2, 8, 8]]), "scores": torch.tensor([0.5]), "labels": torch.ones(1).long()}
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    other = one | {"labels": one["labels"] + 1}
    (track,) = follow([one, none, other, one])
    assert track.scores.tolist() == [0.5, 0, 0, 0.5]
    assert jumps(track.boxes.view(4, 2, 2)).isnan()  # it is in no two frames that follow each other
    assert follow([one], [(4, 12), (0, 12)]) == []  # it reaches out of what all frames see


def test_label_maps_that_move_with_the_image_agree() -> None:
    found = aliasfix.compare(
        Snaps(1).eval(), Snaps(4).eval(), scenes(), metrics=["massc"], output=Returned("label map"), **QUICK
    )
    assert found["massc"].a.mean == 1
    assert 0.5 < found["massc"].b.mean < 0.95


def test_a_pan_is_drawn_with_both_networks() -> None:
    pytest.importorskip("matplotlib")
    found = aliasfix.compare(Finds(1).eval(), Finds(4).eval(), scenes(), metrics=["box_jitter"], **QUICK)
    (drawing,) = found["box_jitter"].kind.figures(found)
    assert drawing.panels[0].svg().startswith("<svg")
    labelled = aliasfix.compare(
        Snaps(1).eval(), Snaps(4).eval(), scenes(), metrics=["massc"], output=Returned("label map"), **QUICK
    )
    (drawing,) = labelled["massc"].kind.figures(labelled)
    assert drawing.panels[0].svg().count("<image") == 12


def test_values_are_compared_after_shifting_back_in_one_dimension_too() -> None:
    class Thins(nn.Module):
        def __init__(self, step: int) -> None:
            super().__init__()
            self.conv, self.step = nn.Conv1d(1, 1, 1), step

        def forward(self, x: Tensor) -> Tensor:
            return x[..., :: self.step].repeat_interleave(self.step, -1)

    sounds = torch.rand(6, 1, 64, generator=torch.Generator().manual_seed(0))
    found = aliasfix.compare(
        Thins(1).eval(), Thins(2).eval(), sounds, metrics=["psnr"], output=Returned("dense"), passes=4
    )
    assert found["psnr"].a.mean == 100
    assert found["psnr"].b.mean < 60


ROWS = {"objects": ["maisc", "box_jitter", "keypoint_jitter", "score_variation", "found_again"]}
