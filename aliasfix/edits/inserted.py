"""The layers that edits insert as children of a model's own modules, and the names of these children."""

from collections.abc import Iterable

from torch import fx, nn

from ..attributes import BLUR
from ..errors import AliasfixError

_LOOPS = {"children", "named_children", "_modules", "modules", "named_modules"}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, fx.GraphModule)


def can_host(module: nn.Module) -> bool:
    """Whether a module may get a child.

    One that runs whatever children it has would run it as a layer; a graph loses what it does not call when copied.
    """
    code = getattr(type(module).forward, "__code__", None)
    loops = code is not None and not _LOOPS.isdisjoint(code.co_names)
    return not loops and not isinstance(module, _CONTAINERS)


def check_host(path: str, module: nn.Module) -> None:
    """Raise an AliasfixError where a module may get no child."""
    if not can_host(module):
        raise AliasfixError(f"{path}: a {type(module).__name__} would run an added blur as a layer of its own")


def insert(module: nn.Module, layer: nn.Module) -> str:
    """Add a layer to a module, and return its name there."""
    name = BLUR
    while hasattr(module, name):
        name = f"{BLUR}_{int(name[len(BLUR) + 1 :] or 1) + 1}"
    module.add_module(name, layer)
    return name


def remove(module: nn.Module, name: str) -> None:
    """Take an inserted layer out of a module, with the hook that reaches it."""
    layer = module._modules.pop(name, None)
    handle = getattr(layer, "handle", None)
    if handle is not None:
        handle.remove()


def remove_all(module: nn.Module) -> None:
    """Take every inserted layer out of a module."""
    for name in [name for name, _ in module.named_children() if is_inserted(name)]:
        remove(module, name)


def is_inserted(name: str) -> bool:
    """Whether a child's name, or a key of its own, is that of an inserted layer.

    >>> is_inserted("aliasfix_blur_2"), is_inserted("layer1.0.aliasfix_blur"), is_inserted("layer1")
    (True, True, False)
    """
    return name.rpartition(".")[2].startswith(BLUR)


def hosts(names: Iterable[str]) -> set[str]:
    """The names that are inserted layers."""
    return {name for name in names if is_inserted(name)}
