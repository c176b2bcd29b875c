"""Count multiply-adds while a model runs, on any kind of tensors."""

from collections.abc import Mapping
from typing import Any

from ..running import DispatchMode


class MultiplyAdds(DispatchMode):
    """Counts the multiply-adds of the ATen operations that run, by the formulas of torch's flop counter.

    >>> import torch
    >>> with MultiplyAdds() as counter:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
    >>> counter.total
    30
    """

    def __init__(self) -> None:
        super().__init__()
        # imported here because it imports triton, which would slow down ``import aliasfix``
        from torch.utils.flop_counter import flop_registry

        self.total = 0
        self._formulas = flop_registry

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out
