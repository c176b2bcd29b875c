"""Fine-tuning of what is no classifier: what it lowers, and that labels of each kind are taken."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import aliasfix
from aliasfix.errors import AliasfixError
from aliasfix.families import Returned
from aliasfix.finetuning.kinds import LabelMaps, Said, middle
from aliasfix.finetuning.moving import moved

pytest.importorskip("torchmetrics")


def net(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, outputs, 3, padding=1),
    )  # fmt: skip
    for module in made:
        if isinstance(module, nn.Conv2d):  # else it says nearly the same everywhere
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    return made


def images(count: int = 16) -> Tensor:
    """Noise, of which a blur leaves little."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def perturbed(model: nn.Module) -> nn.Module:
    """A model that computes what the original does, but for noise in its weights: all of it can be unlearnt."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * parameter.std(correction=0) * torch.randn(parameter.shape)
    return model


def distilled(out: Path, output: Any, outputs: int = 3, **more: Any) -> Any:
    original = net(outputs).eval()
    model = perturbed(aliasfix.convert(original, "delta1", example_input=images(2)))
    loader = DataLoader(images(), 8)
    more = {"validation": DataLoader(images(), 8), "epochs": 12, "lr": 3e-3, "output": output} | more
    return aliasfix.finetune(model, loader, out, original=original, **more)


@pytest.mark.parametrize(("kind", "outputs"), [("label map", 3), ("label map", 1), ("dense", 2), (None, 2)])
def test_tensors_are_distilled_without_labels(tmp_path: Path, kind: Any, outputs: int) -> None:
    found = distilled(tmp_path, Returned(kind), outputs, consistency=0.01)
    before, after = found.epochs[0], found.best
    assert found.epochs[-1].validation_loss < before.validation_loss / 1.5
    assert (after.agreement is None) == (kind != "label map")
    assert after.top1 is None
    assert kind != "label map" or after.agreement >= before.agreement


def test_masks_are_learnt(tmp_path: Path) -> None:
    original = net().eval()
    model = aliasfix.convert(original, example_input=images(2))
    x = images()
    masks = x[:, :1].argmax(1) + (x[:, 0] > 0).long()
    masks[:, :2] = 255  # these do not count
    loader = DataLoader(TensorDataset(x, masks), 8)
    found = aliasfix.finetune(
        model,
        loader,
        tmp_path,
        original=original,
        validation=loader,
        epochs=6,
        lr=1e-2,
        distillation=0,
        consistency=0.1,
    )
    assert found.best.top1 > found.epochs[0].top1 + 0.05
    classes = DataLoader(TensorDataset(x, torch.zeros(16).long()), 8)
    with pytest.raises(AliasfixError, match=r"labels are classes .B,., and the model's are masks"):
        aliasfix.finetune(model, classes, tmp_path / "other", output=Returned("label map"), original=original)


def test_moved_maps_are_compared_where_both_see_the_image() -> None:
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([[[1, -2], [0, 2]], [[-1, 0], [2, 2]]])
    ends = [
        torch.stack([one.roll(tuple(o.tolist()), (1, 2)) for one, o in zip(x, each, strict=True)]) for each in offsets
    ]
    one, other = (middle(end, each, 2, (12, 12)) for end, each in zip(ends, offsets, strict=True))
    torch.testing.assert_close(one, x[..., 2:10, 2:10])
    torch.testing.assert_close(one, other)
    learning = LabelMaps(None)
    assert learning.together(Said((one,)), Said((other,))).max() < 1e-6
    assert learning.together(Said((one,)), Said((ends[1][..., 2:10, 2:10],))).min() > 1e-3


def test_labels_move_with_their_images() -> None:
    offsets = torch.tensor([[[1, 0]], [[0, -1]]])
    mask = torch.arange(9).reshape(1, 3, 3)
    masks = moved(mask, offsets, 1, torch.Size([3, 3]))
    assert isinstance(masks, Tensor)
    assert masks.tolist() == [[[255] * 3, [0, 1, 2], [3, 4, 5]], [[1, 2, 255], [4, 5, 255], [7, 8, 255]]]
    assert moved(torch.tensor([4]), offsets, 1, torch.Size([3, 3])).tolist() == [4, 4]


class Finds(nn.Module):
    """A backbone, and one object where its first map is largest."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = net()

    def forward(self, x: Tensor) -> Any:
        found = []
        for one in self.backbone(x):
            row, column = divmod(int(one[0].argmax()), one.shape[-1])
            box = torch.tensor([[column, row, column + 8, row + 8]]).float()
            found.append({"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1).long()})
        return found


def test_what_finds_objects_is_distilled_on_its_feature_maps(tmp_path: Path) -> None:
    original = Finds().eval()
    model = perturbed(aliasfix.convert(original, "delta1", example_input=images(2)))
    loader = DataLoader(images(), 8)
    found = aliasfix.finetune(
        model, loader, tmp_path, original=original, validation=loader, epochs=12, lr=3e-3, consistency=0.01
    )
    assert found.epochs[-1].validation_loss < found.epochs[0].validation_loss
    assert found.best.agreement >= found.epochs[0].agreement


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
def test_a_detector_learns_on_its_feature_maps_and_from_its_own_losses(tmp_path: Path, labelled: bool) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    size = {"min_size": 64, "max_size": 64, "num_classes": 3, "box_detections_per_img": 5}
    original = torchvision.models.get_model(
        "fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None, **size
    ).eval()
    x = nn.functional.interpolate(images(8), size=64)
    model = aliasfix.convert(original, example_input=x[:2])
    one = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.ones(1).long()}
    data = [(image, one) if labelled else image for image in x]

    def together(items: list[Any]) -> Any:
        if not labelled:
            return torch.stack(items)
        return torch.stack([image for image, _ in items]), [target for _, target in items]

    loader = DataLoader(data, 4, collate_fn=together)
    found = aliasfix.finetune(
        model, loader, tmp_path, original=original, validation=loader, epochs=2, lr=1e-3, consistency=0.1,
        distillation=0.5 if labelled else 1,
    )  # fmt: skip
    assert all(epoch.validation_loss < 1e3 for epoch in found.epochs)
    assert (found.best.top1 is None) != labelled
    assert found.best.agreement is not None
