"""The segmentation networks of torchvision: a dict whose ``out`` has the scores, and ``aux`` those of a second head."""

from .family import Family

FAMILIES = (
    Family(
        "the segmentation networks of torchvision",
        (
            "torchvision.models.segmentation._utils._SimpleSegmentationModel",
            "torchvision.models.segmentation.lraspp.LRASPP",
        ),
        "label map",
        lambda model, result, images: result["out"],
    ),
)
