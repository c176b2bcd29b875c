"""What a checkpoint, and the files beside its weights, say of the images that its network was trained on."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from ..errors import AliasfixError
from ..images.known import of_timm, remember, sensible
from ..images.preprocessing import Preprocessing
from . import directory, models
from .checkpoint import Checkpoint
from .models import Source

PREPROCESSOR = "preprocessor_config.json"


def images_of(file: Checkpoint) -> tuple[str, Preprocessing] | None:
    """How a checkpoint's images are prepared, and where that stands; None if nowhere.

    A record of aliasfix comes first, then the trainer's ``args``, then what timm or Hugging Face wrote beside the
    weights of a directory.

    >>> images_of(Checkpoint(Path("net.pth"), {"state_dict": {}, "args": {"img_size": 48, "mean": [0.5, 0.5, 0.5]}}))[1]
    ... # doctest: +ELLIPSIS
    Preprocessing(size=48, ..., mean=(0.5, 0.5, 0.5), ...)
    """
    if file.record is not None and file.record.images is not None:
        return f"from {file.path.name or file.path}", file.record.images
    said = of_trainer(file.args)
    if said.to_dict():
        return f"from {file.path.name or file.path}", said
    folder = file.path if file.path.is_dir() else file.path.parent if file.path.name in directory.NAMES else None
    return None if folder is None else _of_directory(folder)


def remember_images(model: nn.Module, file: Checkpoint) -> None:
    """Leave on a model what its checkpoint says of its images, for whoever prepares them."""
    found = images_of(file)
    if found is not None:
        source, images = found
        remember(model, images, source)


def remember_library(model: nn.Module, source: Source, args: Mapping[str, Any]) -> None:
    """Leave on a model of torchvision's how images are prepared for its weights; timm's models say it themselves."""
    made = models.transforms_of(source.name, args.get("weights")) if source.library == "torchvision" else None
    if made is None:
        return
    size, resize = (_side(getattr(made, name, None)) for name in ("crop_size", "resize_size"))
    how = getattr(getattr(made, "interpolation", None), "value", None)
    mean, std = getattr(made, "mean", None), getattr(made, "std", None)
    said = sensible(size=size, resize=resize, mean=mean, std=std, interpolation=how)
    remember(model, said, f"from torchvision's weights of {source.name}")


def of_trainer(args: Mapping[str, Any]) -> Preprocessing:
    """What the command line of a trainer says: timm's or torchvision's, or another of the same names."""
    if "val_crop_size" in args:  # torchvision's reference, which always normalises as for ImageNet
        imagenet = sensible(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).to_dict()
        names = {"size": "val_crop_size", "resize": "val_resize_size", "interpolation": "interpolation"}
        return sensible(**imagenet, **{name: args.get(key) for name, key in names.items()})
    size = next((args[key] for key in ("img_size", "image_size", "input_size", "imgsz") if args.get(key)), None)
    said: dict[str, Any] = {"size": _side(size)}
    for name in ("crop_pct", "mean", "std", "interpolation"):
        said[name] = args.get(name)
    return sensible(**said, squash=True if args.get("crop_mode") == "squash" else None)


def of_preprocessor(config: Mapping[str, Any]) -> Preprocessing:
    """What a ``preprocessor_config.json`` of Hugging Face's says."""
    resized, cropped = config.get("size"), config.get("crop_size")
    both = isinstance(resized, Mapping) and "height" in resized
    resize = _side(resized) if config.get("do_resize", True) else None
    crops = bool(config.get("do_center_crop", cropped is not None and not both))
    size = _side(cropped) if crops and cropped else resize
    said: dict[str, Any] = {"size": size, "squash": True if both else None}
    if crops and resize and size and resize > size:
        said["resize"] = resize
    elif config.get("crop_pct"):  # ConvNeXt's: the size is that of the crop
        said["crop_pct"] = config["crop_pct"]
    if config.get("do_normalize", True):
        said |= {"mean": config.get("image_mean"), "std": config.get("image_std")}
    else:
        said |= {"mean": 0.0, "std": 1.0}
    how = config.get("resample")
    if isinstance(how, int) and how in list(Image.Resampling):
        said["interpolation"] = Image.Resampling(how).name.lower()
    return sensible(**said)


def _of_directory(folder: Path) -> tuple[str, Preprocessing] | None:
    for name, read in ((PREPROCESSOR, of_preprocessor), (directory.CONFIG, _of_config)):
        with contextlib.suppress(AliasfixError):
            said = read(directory.read_json(folder, name))
            if said.to_dict():
                return f"from {folder.name or folder}/{name}", said
    return None


def _of_config(config: Mapping[str, Any]) -> Preprocessing:
    """What timm's ``config.json`` says, or Hugging Face's."""
    own = config.get("pretrained_cfg")
    return of_timm(own) if isinstance(own, Mapping) else sensible(size=_side(config.get("image_size")))


def _side(value: Any) -> Any:
    """The side of a square, however it is written."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge", value.get("height"))
    if isinstance(value, list | tuple):
        value = value[-1] if value else None
    return value
