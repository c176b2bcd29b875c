"""MONAI's segmentation networks, in two and three dimensions: scores, or a list of which the first are the best."""

from typing import Any

from torch import Tensor, nn

from .family import Family

_NETS = (
    "UNet", "BasicUNet", "BasicUNetPlusPlus", "AttentionUnet", "DynUNet", "FlexibleUNet", "VNet", "SegResNet",
    "SegResNetDS", "SegResNetDS2", "UNETR", "SwinUNETR", "HighResNet", "AHNet", "DiNTS",
)  # fmt: skip


def _scores(model: nn.Module, result: Any, images: Tensor) -> Any:
    while isinstance(result, tuple | list):
        result = result[0]
    return result


FAMILIES = (
    Family(
        "the segmentation networks of MONAI",
        tuple(f"monai.networks.nets.*.{name}" for name in _NETS),
        "label map",
        _scores,
    ),
)
