"""Find a model by name and build it.

A model is named ``timm:NAME``, ``torchvision:NAME``, by a bare name that either library knows, or
``package.module:factory``; ``transformers:CLASS`` is built from the ``config.json`` of a directory.
A bare name that both know is timm's: the checkpoints of timm's trainer name their model barely, so
the same name then means the same network. `Source.also` says that there was a choice.
"""

import contextlib
import difflib
import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import AliasfixError, explaining
from ..text.wording import one_line
from . import directory
from .record import LIBRARIES

_FORMS = "a model is timm:NAME, torchvision:NAME, NAME or package.module:factory"


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Args:
        library: ``timm``, ``torchvision``, or the module that has the factory.
        name: the model's name there.
        also: the other library that has a model of this name, if the name was bare.

    >>> str(Source("timm", "resnet18", also="torchvision"))
    'timm:resnet18'
    """

    library: str
    name: str
    also: str | None = None

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"


def find(spec: str) -> Source:
    """The model that a name means, without building it.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, a bare name, or ``package.module:factory``.

    Raises:
        AliasfixError: no such model; names those that are close.

    >>> find("torchvision:resnet18")
    Source(library='torchvision', name='resnet18', also=None)
    """
    library, colon, name = spec.partition(":")
    if not colon:
        return _find_bare(spec)
    if library not in LIBRARIES:
        _factory(library, name)
    elif not _has(library, name):
        raise AliasfixError(f"{library} has no model {name!r}{_close(name, names(library))}")
    return Source(library, name)


def build(spec: str | Source, args: Mapping[str, Any] | None = None, pretrained: bool = True) -> nn.Module:
    """Build a model.

    Args:
        spec: its name, see `find`.
        args: what its factory is called with.
        pretrained: with the weights that the library has for it; a factory of the user's decides for itself.

    Raises:
        AliasfixError: no such model, arguments that it does not take, or weights that cannot be had.

    >>> build("torchvision:squeezenet1_1", {"num_classes": 10}, pretrained=False).num_classes
    10
    """
    source = find(spec) if isinstance(spec, str) else spec
    given = dict(args or {})
    prepare = {"timm": _timm_call, "torchvision": _torchvision_call, "transformers": _transformers_call}.get(
        source.library
    )
    if prepare is None:
        factory = _factory(source.library, source.name)
        model = _call(source, lambda: factory(**given), given)
    else:
        call = prepare(source.name, given, pretrained)
        model = _call(source, call, given, fetching=pretrained)
    if not isinstance(model, nn.Module):
        raise AliasfixError(f"{source} made a {type(model).__name__}, not a torch.nn.Module")
    return model


def _find_bare(name: str) -> Source:
    installed = [library for library in LIBRARIES if _load(library, required=False)]
    having = [library for library in installed if _has(library, name)]
    if having:
        return Source(having[0], name, having[1] if len(having) > 1 else None)
    if not installed:
        raise AliasfixError("neither timm nor torchvision is installed: pip install 'aliasfix[zoo]'")
    if os.path.isdir(name):
        raise AliasfixError(
            f"{name} is a directory without weights that are known (config.json and model.safetensors): name a model, "
            f"and the weights as --checkpoint FILE"
        )
    known = [known for library in installed for known in names(library)]
    hint = _close(name, known) or f"; {_FORMS}"
    raise AliasfixError(f"no model {name!r} in {' or '.join(installed)}{hint}")


def _load(library: str, required: bool = True) -> Any:
    """The library, imported only when a model of it is asked for; None where it need not be installed."""
    with explaining(f"{library} cannot be imported"):
        try:
            return importlib.import_module(library)
        except ModuleNotFoundError as error:
            if error.name != library:
                raise
            if required:
                raise AliasfixError(f"{library} is not installed: pip install {library}") from None
            return None


def _has(library: str, name: str) -> bool:
    if library == "timm":
        # of "resnet50.a1_in1k" timm looks only at what is before the dot
        return bool(_load("timm").is_model(name))
    return name in names(library)


def names(library: str) -> list[str]:
    """Every model of a library."""
    listed: list[str] = _load("timm").list_models() if library == "timm" else _load("torchvision").models.list_models()
    return listed


def transforms_of(name: str, weights: object = None) -> Any:
    """How torchvision prepares images for the weights that it has for a model; None if it has none."""
    models = _load("torchvision").models
    try:
        known = models.get_model_weights(name)
        return (known.DEFAULT if weights is None else known[str(weights).rpartition(".")[2]]).transforms()
    except (AttributeError, KeyError, ValueError):
        return None


def _close(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), dict.fromkeys(names), n=4)
    return f"; close to it: {', '.join(close)}" if close else ""


def _timm_call(name: str, args: dict[str, Any], pretrained: bool) -> Callable[[], Any]:
    timm = _load("timm")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        known = list(timm.models.get_arch_pretrained_cfgs(name))
        raise AliasfixError(f"timm has no weights {name!r}{_close(name, known)}") from None
    if pretrained and (config is None or not config.has_weights):
        # timm itself warns at most, and goes on with random weights
        raise AliasfixError(f"timm has no pretrained weights for {name}: give --checkpoint FILE or --random-weights")

    def call() -> Any:
        with _offline_if_unreachable() if pretrained else contextlib.nullcontext():
            return timm.create_model(name, pretrained=pretrained, **args)

    return call


def _torchvision_call(name: str, args: dict[str, Any], pretrained: bool) -> Callable[[], Any]:
    models = _load("torchvision").models
    weights: dict[str, Any] = {"weights": "DEFAULT" if pretrained else None}
    if not pretrained and "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        weights["weights_backbone"] = None  # or a detector fetches its backbone's
    return lambda: models.get_model(name, **(weights | args))


def _transformers_call(name: str, args: dict[str, Any], pretrained: bool) -> Callable[[], Any]:
    """A model of Hugging Face's, from the ``config.json`` of a directory: it is built here, and nothing is fetched."""
    transformers, kind = _load("transformers"), _factory("transformers", name)
    config_class: Any = getattr(kind, "config_class", None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise AliasfixError(f"transformers:{name} is no model")
    if set(args) != {"config"}:
        raise AliasfixError(f"transformers:{name} is built from a directory with a config.json: --arg config=DIR")
    if pretrained:
        raise AliasfixError(
            f"transformers:{name} has no weights of its own: give --checkpoint FILE or --random-weights"
        )
    config = directory.read_config(Path(args["config"]))

    def call() -> Any:
        with _offline():
            return kind(config_class.from_dict(config))

    return call


def _factory(module_name: str, name: str) -> Callable[..., Any]:
    """The factory of the user's own: naming it is the consent to import it."""
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise AliasfixError(f"no model {module_name + ':' + name!r}: {_FORMS}")
    with explaining(f"{module_name} cannot be imported"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # what is missing may also be something that the module itself imports
            if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                raise AliasfixError(f"no module {error.name!r} here or among the installed; {_FORMS}") from None
            raise
    factory: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(factory):
        raise AliasfixError(f"{module_name} has no factory {name!r}{_close(name, _callables(module))}")
    return factory


def _callables(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _call(source: Source, make: Callable[[], Any], args: dict[str, Any], fetching: bool = False) -> Any:
    """What a factory makes; whatever it raises becomes one line."""
    given = ", ".join(f"{key}={value!r}" for key, value in args.items())
    with explaining(f"{source}({given}) cannot be built"), warnings.catch_warnings():
        # torchvision's about its own defaults (init_weights, weights_backbone), which are not the user's
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return make()
        except OSError as error:
            if not fetching:
                raise
            raise AliasfixError(
                f"the pretrained weights of {source} could not be fetched ({one_line(error)}): "
                f"give --checkpoint FILE or --random-weights"
            ) from error


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Look only into the local cache where the Hugging Face hub does not answer.

    Its client would ask for each of two files six times, 50 seconds in all, before it looks there.
    """
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
        reached: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    except Exception:  # of requests or of httpx, as the version of the client has it
        reached = _offline()
    with reached:
        yield


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Without the Hugging Face hub."""
    import huggingface_hub

    constants = huggingface_hub.constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
