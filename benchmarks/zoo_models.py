"""Every model of every zoo, and the input it takes."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Entry:
    """A model of a zoo; ``example`` gives the arguments it is called with, None where it says so itself."""

    zoo: str
    name: str
    build: Callable[[], nn.Module]
    example: Callable[[nn.Module], Any] | None = None
    left_out: str | None = None

    @property
    def version(self) -> str:
        return version({"smp": "segmentation-models-pytorch", "pix2pix": "torch"}.get(self.zoo, self.zoo))


def entries(zoo: str) -> Iterator[Entry]:
    """The models of one zoo, in a stable order."""
    return ZOOS[zoo]()


def image(channels: int, *size: int) -> Callable[[nn.Module], torch.Tensor]:
    return lambda model: torch.rand(1, channels, *size)


def _timm() -> Iterator[Entry]:
    import timm

    for name in timm.list_models(exclude_filters="aliasfix"):  # which opens converted directories
        yield Entry("timm", name, lambda name=name: timm.create_model(name))


def _torchvision() -> Iterator[Entry]:
    import torchvision

    options: dict[str, Any] = {"weights": None}
    for name in torchvision.models.list_models():
        if name.startswith("quantized_"):
            yield Entry("torchvision", name, nn.Identity, left_out="quantized operators have no dense float form")
            continue
        builder = torchvision.models.get_model_builder(name)
        known = inspect.signature(inspect.unwrap(builder)).parameters
        extra = {"weights_backbone": None} if "weights_backbone" in known else {}
        if name in ("googlenet", "inception_v3"):
            extra["init_weights"] = False
        yield Entry(
            "torchvision",
            name,
            lambda name=name, extra=extra: torchvision.models.get_model(name, **options, **extra),
            _torchvision_example(name, builder.__module__),
        )


def _torchvision_example(name: str, module: str) -> Callable[[nn.Module], Any] | None:
    if ".video" in module:
        side = 224 if name.startswith(("mvit", "swin", "s3d")) else 112
        return image(3, 16, side, side)
    if ".optical_flow" in module:
        return lambda model: (torch.rand(1, 3, 128, 192), torch.rand(1, 3, 128, 192))
    if ".detection" in module:
        return lambda model: ([torch.rand(3, 256, 320)],)
    if name == "inception_v3":
        return image(3, 299, 299)
    return image(3, 224, 224)


def _smp() -> Iterator[Entry]:
    import segmentation_models_pytorch as smp

    decoders = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus")
    for decoder in (*decoders, "UPerNet", "Segformer"):
        for encoder in ("resnet18", "efficientnet-b0", "mobilenet_v2"):
            make = getattr(smp, decoder)
            yield Entry(
                "smp",
                f"{decoder}-{encoder}",
                lambda make=make, encoder=encoder: make(encoder, encoder_weights=None, classes=3),
                image(3, 128, 160),
            )


def _transformers() -> Iterator[Entry]:
    import transformers as hf

    names = (
        *("ResNet", "ConvNext", "ConvNextV2", "Swin", "Swinv2", "Segformer", "MobileNetV1", "MobileNetV2", "RegNet"),
        *("Bit", "EfficientNet", "Levit", "Cvt", "PoolFormer", "Pvt", "PvtV2", "VanillaNet", "FocalNet", "Dinat"),
        *("MobileViT", "MobileViTV2", "SwiftFormer", "VAN", "EfficientFormer", "Hiera", "TextNet", "HGNetV2"),
    )
    for name in names:
        config, model = getattr(hf, f"{name}Config", None), getattr(hf, f"{name}Model", None)
        if config is None or model is None:
            continue
        yield Entry("transformers", name, lambda config=config, model=model: model(config()), image(3, 224, 224))
    for name, options in (("Detr", {}), ("Mask2Former", {}), ("UperNet", {}), ("DPT", {})):
        config = getattr(hf, f"{name}Config", None)
        model = getattr(hf, f"{name}Model", None) or getattr(hf, f"{name}ForSemanticSegmentation", None)
        yield Entry(
            "transformers",
            name,
            lambda config=config, model=model, options=options: model(config(**_offline(options))),
            image(3, 384, 384) if name == "DPT" else image(3, 256, 256),
        )


def _offline(options: dict[str, Any]) -> dict[str, Any]:
    return options


def _monai() -> Iterator[Entry]:
    from monai.networks import nets

    for axes, size in ((2, (96, 96)), (3, (48, 48, 48))):
        channels = {"spatial_dims": axes, "in_channels": 1, "out_channels": 2}
        yield Entry(
            "monai",
            f"UNet-{axes}d",
            lambda channels=channels: nets.UNet(**channels, channels=(8, 16, 32, 64), strides=(2, 2, 2)),
            image(1, *size),
        )
        for name in ("BasicUNet", "AttentionUnet", "SegResNet", "VNet"):
            extra: dict[str, Any] = {"channels": (8, 16, 32), "strides": (2, 2)} if name == "AttentionUnet" else {}
            shape = {} if name != "SegResNet" else {"init_filters": 8}
            yield Entry(
                "monai",
                f"{name}-{axes}d",
                lambda name=name, channels=channels, extra=extra, shape=shape: getattr(nets, name)(
                    **channels, **extra, **shape
                ),
                image(1, *size),
            )


def _ultralytics() -> Iterator[Entry]:
    from ultralytics.nn.tasks import DetectionModel

    for name in ("yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n"):
        yield Entry(
            "ultralytics", name, lambda name=name: DetectionModel(f"{name}.yaml", verbose=False), image(3, 256, 320)
        )


def _facenet() -> Iterator[Entry]:
    from facenet_pytorch import InceptionResnetV1
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    yield Entry("facenet-pytorch", "InceptionResnetV1", InceptionResnetV1, image(3, 160, 160))
    for net, side in ((PNet, 64), (RNet, 24), (ONet, 48)):
        build = lambda net=net: net(pretrained=False)  # noqa: E731
        yield Entry("facenet-pytorch", net.__name__, build, image(3, side, side))


def _diffusers() -> Iterator[Entry]:
    import diffusers

    small = {"block_out_channels": (32, 64), "norm_num_groups": 8}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    yield Entry(
        "diffusers",
        "UNet2DModel",
        lambda: diffusers.UNet2DModel(sample_size=32, **small, **blocks),
        lambda model: (torch.rand(1, 3, 32, 32), torch.tensor([1])),
    )
    ends = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    yield Entry("diffusers", "AutoencoderKL", lambda: diffusers.AutoencoderKL(**small, **ends), image(3, 64, 64))


def _pix2pix() -> Iterator[Entry]:
    from pix2pix import UNetGenerator

    yield Entry("pix2pix", "UNetGenerator", UNetGenerator, image(3, 64, 64))


ZOOS: dict[str, Callable[[], Iterator[Entry]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "smp": _smp,
    "transformers": _transformers,
    "monai": _monai,
    "ultralytics": _ultralytics,
    "facenet-pytorch": _facenet,
    "diffusers": _diffusers,
    "pix2pix": _pix2pix,
}
