"""Hide the function calls of a conversion from the modes that count a model's function calls."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Listener(TorchFunctionMode):
    """A mode that counts function calls, unless it is ``paused``."""

    paused = False


def listeners() -> list[Listener]:
    """Return the active listeners, the innermost last."""
    modes = [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]
    return [mode for mode in modes if isinstance(mode, Listener)]


def call_paused(modes: Sequence[Listener], func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``func(*args, **kwargs)`` while these listeners are paused."""
    before = [mode.paused for mode in modes]
    for mode in modes:
        mode.paused = True
    try:
        return func(*args, **kwargs)
    finally:
        for mode, paused in zip(modes, before, strict=True):
            mode.paused = paused
