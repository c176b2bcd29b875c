"""The one architecture that timm learns: ``aliasfix``, with the base and the steps in its ``model_args``.

Importing timm takes longer than importing torch, so that it is not imported for this: the name is registered when
somebody imports ``timm.models``, before or after.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import AliasfixError
from . import directory, loading, models, prefixes, store
from .record import Record, check_base

_HOME = "timm.models"
_UNSET = (None, 0, 0.0, False, "")
_FEATURES = ("out_indices", "feature_cls")


def install() -> None:
    """Register the name in timm now if it is imported, else as soon as it is."""
    timm = sys.modules.get(_HOME)
    if timm is not None and hasattr(timm, "register_model"):
        _register(timm)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``timm.models`` as the others do, and registers the name once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The others' finding of this one module, with a loader that goes on."""
        if fullname != _HOME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            _register(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one loader
        return spec


def _register(timm: ModuleType) -> None:
    if not timm.is_model(directory.ARCHITECTURE):
        timm.register_model(aliasfix)


def aliasfix(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    record: object = None,
    pretrained_model_args: object = None,
    **args: Any,
) -> nn.Module:
    """A converted model, as ``timm.create_model`` builds it from a directory that aliasfix wrote.

    Args:
        pretrained: load the directory's weights, else random ones.
        pretrained_cfg: from the directory's ``config.json``.
        pretrained_cfg_overlay: what the caller would have otherwise in it.
        cache_dir: of the weights of a hub.
        record: from the directory's ``config.json``; the only place where the steps stand.
        pretrained_model_args: not used.
        args: arguments of the base that come before those in the record. With ``features_only``, also ``out_indices``.

    Returns:
        The model; with ``features_only`` the maps of its stages, from the converted model in ``model``.
    """
    import timm

    if record is None:
        raise AliasfixError("timm's model 'aliasfix' is opened from a directory: timm.create_model('local-dir:PATH')")
    known = Record.from_dict(record)
    if known.base is None:
        raise AliasfixError("the directory does not say how its model is built")
    features = {key: args.pop(key) for key in _FEATURES if key in args} if args.pop("features_only", False) else None
    library = known.base.partition(":")[0]
    if library == "torchvision":  # it knows none of the options that timm's scripts pass on
        args = {key: value for key, value in args.items() if value not in _UNSET}
    check_base(known.base, args)
    model = models.build(known.base, {**known.base_args, **args}, pretrained=False)
    config = pretrained_cfg if isinstance(pretrained_cfg, dict) else pretrained_cfg.to_dict() if pretrained_cfg else {}
    config = {**config, **(pretrained_cfg_overlay or {}), "architecture": directory.ARCHITECTURE}
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    if pretrained:
        given = config
        if config.get("source") == "local-dir":  # the files of a hub come to timm
            file, _ = store.read_converted(Path(config["file"]))
            own = model.state_dict()
            given = config | {"source": "", "state_dict": loading.versioned(prefixes.match(file, own).state, own)}
        classes = getattr(model, "num_classes", args.get("num_classes", config.get("num_classes")))
        if library == "torchvision" and classes != config.get("num_classes"):
            raise AliasfixError(f"{known.base} has weights for {config.get('num_classes')} classes, not {classes}")
        timm.models.load_pretrained(
            model,
            given,
            num_classes=config.get("num_classes", 1000) if classes is None else classes,
            in_chans=getattr(model, "in_chans", args.get("in_chans", known.base_args.get("in_chans", 3))),
            cache_dir=cache_dir,
        )
    store.convert_as(model, known.plan, "its config.json")
    store.remember(model, known)
    dressed: Any = model  # nn.Module declares every attribute as a tensor or a module
    dressed.pretrained_cfg = dressed.default_cfg = config
    if not hasattr(model, "num_classes"):
        dressed.num_classes = config.get("num_classes")
    return model if features is None else _features(model, known, features)


def _features(model: nn.Module, known: Record, given: Mapping[str, Any]) -> nn.Module:
    """What timm's ``features_only`` gives, at the stages of the base, from the converted model.

    Raises:
        AliasfixError: the base has no such stages, or they are computed without a function call that is converted.
    """
    from timm.models._features import FeatureGetterNet

    instead = "build the base with features_only=True and convert that"
    if "feature_cls" in given:
        raise AliasfixError(f"features_only of a converted directory takes out_indices=, not feature_cls=: {instead}")
    if not hasattr(model, "forward_intermediates"):
        raise AliasfixError(f"features_only: {known.base} has no forward_intermediates: {instead}")
    if any(not edit.path for edit in known.plan.edits):
        raise AliasfixError(f"features_only: {known.base} calls in its own forward what is converted: {instead}")
    twin: Any = store.rebuild(str(known.base), {**known.base_args, **given, "features_only": True})
    features: nn.Module = FeatureGetterNet(model, out_indices=twin.feature_info.out_indices)
    return features
