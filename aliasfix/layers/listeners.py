"""Keep what a conversion computes from the modes that count a model's function calls."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Listener(TorchFunctionMode):
    """A mode that counts function calls, unless it is ``deaf``."""

    deaf = False


def listeners() -> list[Listener]:
    """The listeners in force, the innermost last."""
    modes = [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]
    return [mode for mode in modes if isinstance(mode, Listener)]


def unheard(modes: Sequence[Listener], func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``func(*args, **kwargs)``, of which these listeners hear nothing."""
    before = [mode.deaf for mode in modes]
    for mode in modes:
        mode.deaf = True
    try:
        return func(*args, **kwargs)
    finally:
        for mode, deaf in zip(modes, before, strict=True):
            mode.deaf = deaf
