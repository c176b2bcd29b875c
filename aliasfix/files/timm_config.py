"""What timm leaves on a model that it built: its name, its arguments, and what its images look like."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import AliasfixError
from ..images.preprocessing import Preprocessing
from ..text.wording import one_line
from . import directory
from .record import Record


def base_of(model: nn.Module) -> tuple[str | None, dict[str, Any]]:
    """The base of a model that timm built, and what it was built with as far as timm keeps it."""
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or not name or name == directory.ARCHITECTURE:
        return None, {}
    return f"timm:{name}", current_args(model, f"timm:{name}")


def current_args(model: nn.Module, base: str | None) -> dict[str, Any]:
    """What timm's factory would have to be called with for a model as it is now."""
    if base is None or not base.startswith("timm:"):
        return {}
    try:
        from timm.models._input import get_model_args
    except ImportError:  # timm before 1.0.27 keeps no arguments
        known = {"num_classes": "num_classes", "in_chans": "in_chans"}
        return {key: getattr(model, name) for key, name in known.items() if isinstance(getattr(model, name, None), int)}
    args: dict[str, Any] = json.loads(json.dumps(get_model_args(model), default=str))
    return {key: value for key, value in args.items() if key != "record"}


def config(model: nn.Module, record: Record) -> dict[str, Any]:
    """The ``config.json`` of a converted model, without the record: what timm needs to prepare images for it."""
    made = _config(model, record)
    images = _images(record.images, made["pretrained_cfg"]) if record.images is not None else {}
    return made | {"pretrained_cfg": {**made["pretrained_cfg"], **images}}


def _images(known: Preprocessing, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the images, as timm writes it."""
    said = known.to_dict()
    found: dict[str, Any] = {name: said[name] for name in ("mean", "std", "interpolation", "crop_pct") if name in said}
    size = said.get("size")
    if size is not None:
        found["input_size"] = [config.get("input_size", [3])[0], size, size]
        found |= {"crop_pct": size / said["resize"]} if "resize" in said else {}
    return found | ({"crop_mode": "squash"} if said.get("squash") else {})


def _config(model: nn.Module, record: Record) -> dict[str, Any]:
    own = getattr(model, "pretrained_cfg", None)
    if not isinstance(own, Mapping):
        taken: Mapping[str, Any] = record.fingerprint or {"inputs": {"0": {"shape": [1, 3, 224, 224]}}, "outputs": []}
        size, outputs = next(iter(taken["inputs"].values()))["shape"][1:], taken["outputs"]
        classes = next((shape[-1] for shape in outputs if shape), 0)
        return {"num_classes": classes, "pretrained_cfg": {"input_size": size, "num_classes": classes}}
    from timm.models._hub import save_config_for_hf

    try:
        with tempfile.TemporaryDirectory() as folder:
            save_config_for_hf(model, Path(folder) / "config.json", model_args=None)
            text = (Path(folder) / "config.json").read_text(encoding="utf-8")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise AliasfixError(f"timm cannot write the configuration of {record.base}: {one_line(error)}") from error
    made: dict[str, Any] = json.loads(text)
    return made
