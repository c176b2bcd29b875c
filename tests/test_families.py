"""Models that images alone do not train: they are planned in both modes, and quickly."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import aliasfix
from aliasfix.planning.places import twins
from aliasfix.tracing.example import traces
from aliasfix.tracing.operation import of
from aliasfix.tracing.trace import Trace

SMALL = {"min_size": 256, "max_size": 320}
FEW = {"box_detections_per_img": 5}
DETECTORS: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {},
    "fasterrcnn_resnet50_fpn_v2": SMALL,
    "maskrcnn_resnet50_fpn": SMALL | FEW,
    "keypointrcnn_resnet50_fpn": {"min_size": (224, 240, 256), "max_size": 320, "num_keypoints": 5} | FEW,
    "retinanet_resnet50_fpn": SMALL,
    "fcos_resnet50_fpn": SMALL,
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
}
LONG = ("fasterrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn")


class Searching(nn.Module):
    """Runs on real tensors only, and wants targets in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor, targets: Any = None) -> Tensor:
        x = self.act(self.conv(x))
        found = x[x.sum((1, 2, 3)).numpy() > -1]
        if self.training:
            assert targets is not None, "targets should not be none"
        return found


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **DETECTORS[name]).eval()


def count_real_passes(model: nn.Module) -> list[bool]:
    """A list that grows by one, the mode, with each pass on tensors that hold values."""
    modes: list[bool] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if type(args[0][0]) is Tensor and args[0][0].device.type != "meta":
            modes.append(module.training)

    model.register_forward_pre_hook(note)
    return modes


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in DETECTORS]
)
def test_a_detector_is_planned_in_two_passes(name: str) -> None:
    model = build(name)
    passes = count_real_passes(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = [dict(module.__dict__) for module in model.modules()]
    random = torch.get_rng_state()
    plan = aliasfix.inspect(model)
    assert passes == [False, True]
    assert plan.converted
    assert plan.notes == ()
    assert plan.traced == (2, 3, 224, 224)
    assert sum(step.path == "transform" for step in plan) == 2  # of the images, not of masks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [dict(module.__dict__) for module in model.modules()] == attributes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn"])
def test_both_modes_of_an_example_see_the_same_layers_on_maps_of_the_same_size(name: str) -> None:
    model = build(name)
    passes = count_real_passes(model)
    (evaluation, training), notes, _ = traces(model, ([torch.rand(3, 96, 128)],))
    assert passes == [False, True]
    assert (evaluation.backing, training.backing, notes) == ("real", "drawn", [])
    assert layers(evaluation) == layers(training)
    aligned = twins(evaluation, training)
    convolutions = [node for node in evaluation.graph.nodes if of(node).name.startswith("conv")]
    assert convolutions
    assert all(node in aligned for node in convolutions)


def layers(trace: Trace) -> set[tuple[str, tuple[int, ...]]]:
    """The convolutions and the sizes of their maps; a detector trains on other numbers of objects than it finds."""
    nodes = [node for node in trace.graph.nodes if of(node).name.startswith("conv")]
    return {(of(node).path, of(node).shape[1:]) for node in nodes}


def test_targets_that_are_given_are_taken() -> None:
    model = build("fasterrcnn_mobilenet_v3_large_320_fpn")
    target = {"boxes": torch.tensor([[8.0, 8, 64, 64]]), "labels": torch.tensor([3])}
    plan = aliasfix.inspect(model, example_input=([torch.rand(3, 96, 128)], [target]))
    assert plan.converted
    assert plan.notes == ()


def test_a_converted_detector_trains() -> None:
    model = aliasfix.convert(build("maskrcnn_resnet50_fpn")).train()
    box = {"boxes": torch.tensor([[8.0, 8, 64, 64]]), "labels": torch.tensor([1])}
    losses = model([torch.rand(3, 64, 96)], [box | {"masks": torch.ones(1, 64, 96, dtype=torch.uint8)}])
    assert all(loss.isfinite() for loss in losses.values())


def test_what_wants_targets_is_not_run_at_every_size() -> None:
    model = Searching()
    passes = count_real_passes(model)
    plan = aliasfix.inspect(model)
    assert passes == [False, True, True]
    assert len(plan) == 1
    assert "targets should not be none" in plan.notes[0]
