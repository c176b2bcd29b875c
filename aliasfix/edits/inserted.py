"""Insert layers as children of a model's modules, and remove them."""

from collections.abc import Iterable

from torch import fx, nn

from ..attributes import BLUR
from ..errors import AliasfixError

_LOOPS = {"children", "named_children", "_modules", "modules", "named_modules"}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, fx.GraphModule)


def can_host(module: nn.Module) -> bool:
    """Whether a module can hold an inserted layer.

    A module that runs all of its children would run the layer as one of them. A copy of an FX graph loses children that
    the graph does not call.
    """
    code = getattr(type(module).forward, "__code__", None)
    loops = code is not None and not _LOOPS.isdisjoint(code.co_names)
    return not loops and not isinstance(module, _CONTAINERS)


def check_host(path: str, module: nn.Module) -> None:
    """Raise an AliasfixError if a module cannot hold an inserted layer."""
    if not can_host(module):
        raise AliasfixError(f"{path}: a {type(module).__name__} cannot hold a blur: it would run it as another layer")


def insert(module: nn.Module, layer: nn.Module) -> str:
    """Add a layer to a module, and return its name there."""
    name = BLUR
    while hasattr(module, name):
        name = f"{BLUR}_{int(name[len(BLUR) + 1 :] or 1) + 1}"
    module.add_module(name, layer)
    return name


def remove(module: nn.Module, name: str) -> None:
    """Remove an inserted layer and its hook."""
    layer = module._modules.pop(name, None)
    handle = getattr(layer, "handle", None)
    if handle is not None:
        handle.remove()


def remove_all(module: nn.Module) -> None:
    """Remove every inserted layer of a module."""
    for name in [name for name, _ in module.named_children() if is_inserted(name)]:
        remove(module, name)


def is_inserted(name: str) -> bool:
    """Whether a child's name or path is that of an inserted layer.

    >>> is_inserted("aliasfix_blur_2"), is_inserted("layer1.0.aliasfix_blur"), is_inserted("layer1")
    (True, True, False)
    """
    return name.rpartition(".")[2].startswith(BLUR)


def hosts(names: Iterable[str]) -> set[str]:
    """Return the names of inserted layers."""
    return {name for name in names if is_inserted(name)}
