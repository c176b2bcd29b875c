"""timm's ``features_only`` networks: a list or a dict of maps."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .family import Family


def _maps(model: nn.Module, result: Any, images: Tensor) -> Any:
    return tuple(result.values() if isinstance(result, Mapping) else result)


FAMILIES = (
    Family(
        "the features_only networks of timm",
        (
            "timm.models._features.FeatureDictNet",
            "timm.models._features.FeatureHookNet",
            "timm.models._features.FeatureGetterNet",
            "timm.models._features_fx.FeatureGraphNet",
        ),
        "dense",
        _maps,
    ),
)
