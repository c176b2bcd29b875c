"""Detect that a part of a converted model was replaced: without its edit the model computes something else."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from ..errors import AliasfixError
from .edit import Edit


class Watch:
    """A forward pre-hook of a converted model, which checks that every edit is still in place.

    Other tools replace modules: a ReLU by a GELU, several convolutions by a fused one. A tool that wraps a module keeps
    the module and its edit, one level deeper.
    """

    def __init__(self, edits: Iterable[Edit]) -> None:
        self.places = [(edit, _parts(edit.path)) for edit in edits]

    def __call__(self, model: nn.Module, args: Any) -> None:
        """Check the edits.

        Raises:
            AliasfixError: one is lost.
        """
        for index, (edit, parts) in enumerate(self.places):
            module: nn.Module | None = model
            for part in parts:
                module = module._modules.get(part) if module is not None else None
            if module is None or not edit.holds(module):
                self._search(model, index, edit)

    def _search(self, model: nn.Module, index: int, edit: Edit) -> None:
        """Find an edited module that was wrapped, and store its new path."""
        wanted = _parts(edit.path)
        for path, module in model.named_modules():
            if _wraps(_parts(path), wanted) and edit.holds(module):
                self.places[index] = edit, _parts(path)
                return
        now = dict(model.named_modules()).get(edit.path)
        what = "is gone" if now is None else f"is now a {type(now).__name__} without {edit.mark}"
        raise AliasfixError(
            f"{edit.path or 'the model'} was converted and {what}: replace, fuse or reparameterize modules before "
            "aliasfix.convert"
        )


def watch(model: nn.Module, edits: Iterable[Edit]) -> None:
    """Check the edits at every call of the model."""
    hook: Any = Watch(edits)
    hook.handle = model.register_forward_pre_hook(hook)  # unpickling a handle reserves the hook's id


def unwatch(model: nn.Module) -> None:
    """Remove the check."""
    for key in [key for key, hook in model._forward_pre_hooks.items() if isinstance(hook, Watch)]:
        del model._forward_pre_hooks[key]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split(".")) if path else ()


def _wraps(path: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether ``path`` is ``wanted`` with names of wrappers in between.

    >>> _wraps(("layer1", "_orig_mod", "conv"), ("layer1", "conv")), _wraps(("layer2", "conv"), ("layer1", "conv"))
    (True, False)
    """
    names = iter(path)
    return all(part in names for part in wanted)
