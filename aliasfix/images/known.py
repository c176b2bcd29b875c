"""What is known of the images that a network was trained on."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from aliasfix.attributes import IMAGES
from aliasfix.errors import AliasfixError
from aliasfix.families import family as families
from aliasfix.images.prepared import IMAGENET, Prepared, settle
from aliasfix.images.preprocessing import Preprocessing, Transform
from aliasfix.tracing.example import configured_size

Given = Preprocessing | Transform | None
"""What a user says of the images: a `Preprocessing`, a transform of his own, or nothing."""


def prepared(
    model: nn.Module, given: Given = None, size: int | None = None, beside: nn.Module | None = None
) -> Prepared:
    """How images are prepared for a model.

    Args:
        model: says what was saved with it, else what its configuration says.
        given: what the user says of it, which comes first.
        size: the side that the user says beside it.
        beside: another model of the same images, asked where the first does not say.

    Raises:
        AliasfixError: values that do not fit together.

    >>> print(prepared(nn.Identity(), size=48))
    48x48, bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, size as given; the rest as for ImageNet
    """
    others = known(model), None if beside is None else known(beside), configured(model), of_family(model)
    layers = [("as given", said(given, size)), *(layer for layer in others if layer is not None)]
    return dataclasses.replace(settle([*layers, ("as for ImageNet", IMAGENET)]), channels=channels(model))


def said(given: Given, size: int | None = None) -> Preprocessing:
    """What a user says, as one `Preprocessing`.

    Raises:
        AliasfixError: neither a `Preprocessing` nor a transform, or two sizes.
    """
    if given is None:
        given = Preprocessing()
    elif not isinstance(given, Preprocessing):
        if not callable(given):
            raise AliasfixError(
                f"preprocessing= is an aliasfix.Preprocessing, or a transform of PIL images, not {given!r:.60}"
            )
        given = Preprocessing(transform=given)
    if size is None or given.size == size:
        return given
    if given.size is not None:
        raise AliasfixError(f"size={size} and preprocessing= of size {given.size}: give one of them")
    return dataclasses.replace(given, size=size)


def known(model: nn.Module) -> tuple[str, Preprocessing] | None:
    """What was saved with a model, or said of it, and where that comes from; None if nothing."""
    held = model.__dict__.get(IMAGES)
    return None if held is None else (held["source"], Preprocessing.from_dict(held["images"]))


def remembered(model: nn.Module) -> Preprocessing | None:
    """What is saved with a model of how its images are prepared; None if nothing is known."""
    found = known(model)
    return None if found is None else found[1]


def remember(model: nn.Module, images: Preprocessing, source: str) -> None:
    """Leave on a model how its images are prepared; what was known of it before stays where this says nothing."""
    before = known(model)
    data = {} if before is None else before[1].to_dict()
    more = images.to_dict()
    if {"resize", "crop_pct"} & more.keys():
        data = {name: value for name, value in data.items() if name not in ("resize", "crop_pct")}
    elif "size" in more and {"size", "resize"} <= data.keys():
        data["crop_pct"] = data["size"] / data.pop("resize")  # as much is cropped of another size
    if more:
        model.__dict__[IMAGES] = {"source": source, "images": data | more}


def configured(model: nn.Module) -> tuple[str, Preprocessing] | None:
    """What the configuration says that timm or Hugging Face leaves on a model of theirs."""
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, Mapping):
        of = config.get("architecture")
        return f"from timm's configuration of {of}" if of else "from its pretrained_cfg", of_timm(config)
    size = configured_size(model)
    return None if size is None else ("from the model's config", Preprocessing(size=size[-1]))


def of_family(model: nn.Module) -> tuple[str, Preprocessing] | None:
    """How the images of a model's family are prepared, where that is not as for ImageNet."""
    family = families.of(model)
    return (f"as for {family.name}", Preprocessing(**family.images)) if family is not None and family.images else None


def of_timm(config: Mapping[str, Any]) -> Preprocessing:
    """What a ``pretrained_cfg`` of timm's says; what makes no sense in it says nothing."""
    size = config.get("input_size")
    return sensible(
        size=size[-1] if isinstance(size, Sequence) and size else None,
        crop_pct=config.get("crop_pct"),
        mean=config.get("mean"),
        std=config.get("std"),
        interpolation=config.get("interpolation"),
        squash=True if config.get("crop_mode") == "squash" else None,
    )


def sensible(**said: Any) -> Preprocessing:
    """A `Preprocessing` of what somebody else's file says, without what makes no sense.

    >>> sensible(size=48, mean="what?", interpolation="random")
    Preprocessing(size=48, resize=None, crop_pct=None, mean=None, std=None, interpolation=None, unreadable=None, \
squash=None, transform=None)
    """
    kept = Preprocessing()
    for name, value in said.items():
        with contextlib.suppress(AliasfixError, TypeError):
            kept = dataclasses.replace(kept, **{name: value})
    return kept


def channels(model: nn.Module) -> int:
    """How many channels a model's images have: 1 or 3."""
    size = configured_size(model)
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 1 if (size[0] if size else first.in_channels if first else 3) == 1 else 3
