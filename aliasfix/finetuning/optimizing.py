"""The optimizer, the schedule and the moving average of a run: timm's, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from ..errors import AliasfixError
from ..text.wording import one_line


def optimizer(model: nn.Module, identity: Mapping[str, Any], updates: int) -> tuple[torch.optim.Optimizer, Any]:
    """timm's optimizer and schedule by name.

    Raises:
        AliasfixError: timm has none of the name; says which are close.
    """
    from timm.optim import create_optimizer_v2, list_optimizers
    from timm.scheduler import create_scheduler_v2

    name, schedule = identity["optimizer"], identity["schedule"]
    try:
        optimizer = create_optimizer_v2(model, name, lr=identity["lr"], weight_decay=identity["weight_decay"])
    except (ValueError, KeyError, AssertionError) as error:
        known = f"; close to it: {', '.join(close)}" if (close := get_close_matches(name, list_optimizers())) else ""
        raise AliasfixError(f"timm makes no optimizer {name!r}: {one_line(error)}{known}") from None
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer, schedule, identity["epochs"], warmup_epochs=identity["warmup_epochs"], warmup_lr=0.0,
            step_on_epochs=False, updates_per_epoch=updates,
        )  # fmt: skip
    except (ValueError, AssertionError) as error:
        raise AliasfixError(f"timm makes no schedule {schedule!r}: {one_line(error)}; try cosine or none") from None
    return optimizer, scheduler


def average(model: nn.Module, decay: float | None) -> Any:
    """timm's moving average of the weights, None without a decay."""
    from timm.utils import ModelEmaV3

    return None if decay is None else ModelEmaV3(model, decay=decay, use_warmup=True)
