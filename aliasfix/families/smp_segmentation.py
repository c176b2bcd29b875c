"""segmentation_models_pytorch: scores, with the logits of a classification head beside them where there is one."""

from torch import Tensor

from .family import Family

FAMILIES = (
    Family(
        "segmentation_models_pytorch",
        ("segmentation_models_pytorch.base.model.SegmentationModel",),
        "label map",
        lambda model, result, images: result if isinstance(result, Tensor) else result[0],
    ),
)
