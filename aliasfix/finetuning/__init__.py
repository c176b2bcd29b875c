"""Fine-tune a converted network, with labels or by distillation from the original, on `accelerate`."""

from .finetuning import finetune
from .result import Finetuning

__all__ = ["Finetuning", "finetune"]
