"""Count the strided operations of ATen, as a check that is independent of the trace (law 7).

A ``TorchDispatchMode`` sees every operation below autograd, on fake tensors. Module hooks say which module is running.
"""

from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..layers.build import is_inserted_layer
from ..planning.plan import Plan
from ..running import DispatchMode, call_stack
from ..tracing.nested import map_tensors
from ..tracing.undisturbed import undisturbed

_MAX = {f"max_pool{n}d_with_indices" for n in (1, 2, 3)} | {f"max_pool{n}d" for n in (1, 2, 3)}
_AVERAGE = {f"avg_pool{n}d" for n in (1, 2, 3)}
_ADAPTIVE = {f"{p}adaptive_{m}_pool{n}d" for p in ("", "_") for m in ("avg", "max") for n in (1, 2, 3)}
_NEAREST = {f"upsample_nearest{e}{n}d" for e in ("", "_exact") for n in (1, 2, 3)}
_SMOOTH = {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"}


def unaccounted(model: nn.Module, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """List the strided ATen operations of one pass that the plan does not explain.

    A strided operation is explained if it is a blur, or belongs to a step that is kept or is converted as blur-first or
    split. A pool that returns indices stays strided for the indices.

    Args:
        model: a model that was converted by ``plan``, or any model with an empty plan.
        args, kwargs: the input.

    >>> import torch
    >>> from aliasfix import inspect
    >>> model = nn.Sequential(nn.MaxPool2d(2))
    >>> unaccounted(model, inspect(model), (torch.ones(1, 1, 8, 8),), {})
    ['max_pool2d_with_indices of stride (2, 2) in 0']
    """
    allowed: Counter[tuple[str, str]] = Counter()
    for step in plan:
        only_for_indices = step.op.endswith("with_indices")
        if step.action == "keep" or step.form in ("blur-first", "split") or only_for_indices:
            allowed[step.path, _family(step.op)] += 1
    missing = []
    for path, op, stride in strided_operations(model, args, kwargs):
        if allowed[path, _family(op)] > 0:
            allowed[path, _family(op)] -= 1
        else:
            missing.append(f"{op} of stride {stride} in {path or 'the model'}")
    return missing


def strided_operations(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, str, tuple[int, ...]]]:
    """List the strided operations that ATen runs outside of blurs: (module path, operation, stride)."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            return _witnessed(model, map_tensors(args, fake.from_tensor), map_tensors(kwargs, fake.from_tensor))
    except Exception:  # the model asks for values, which fake tensors do not have
        return _witnessed(model, args, kwargs)


def _witnessed(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, str, tuple[int, ...]]]:
    with undisturbed(model, training=False), call_stack(model) as stack:
        witness = _Witness(stack)
        with witness:
            model(*args, **kwargs)
    return witness.found


class _Witness(DispatchMode):
    def __init__(self, stack: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.stack = stack
        self.found: list[tuple[str, str, tuple[int, ...]]] = []
        self.sliced: dict[int, tuple[Tensor, dict[int, int]]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        op = func.overloadpacket.__name__
        stride = self._stride(op, args, out)
        if max(stride, default=1) > 1 and not any(is_inserted_layer(module) for _, module in self.stack):
            self.found.append((self.stack[-1][0] if self.stack else "", op, stride))
        return out

    def _stride(self, op: str, args: tuple[Any, ...], out: Any) -> tuple[int, ...]:
        if op == "convolution":
            return () if args[6] else tuple(args[3])
        if op in _MAX | _AVERAGE:
            return tuple((args[2] if len(args) > 2 else ()) or args[1])
        if op in _ADAPTIVE | _NEAREST:
            out = out[0] if isinstance(out, tuple) else out
            axes = int(op[-2])
            pairs = list(zip(args[0].shape[-axes:], out.shape[-axes:], strict=True))
            single = all(small == 1 for _, small in pairs)
            return () if single else tuple(-(-big // small) for big, small in pairs)
        if op == "slice" and isinstance(out, Tensor):
            return self._slice(args, out)
        if op in ("im2col", "pixel_unshuffle"):
            return tuple(args[4]) if op == "im2col" else (args[1],) * 2
        return ()

    def _slice(self, args: tuple[Any, ...], out: Tensor) -> tuple[int, ...]:
        """Return the steps of slices along two axes, which sample an image; a slice along one axis splits a table."""
        held = self.sliced.get(id(args[0]))
        steps = dict(held[1]) if held is not None else {}
        if len(args) > 4 and args[4] > 1:
            steps[args[1] % out.dim()] = args[4]
        elif not steps:
            return ()
        self.sliced[id(out)] = (out, steps)
        return tuple(steps.values()) if len(steps) > 1 and len(args) > 4 and args[4] > 1 else ()


def _family(op: str) -> str:
    """Return one name for a function and its ATen operations."""
    if op.startswith("conv"):
        return "conv"
    if "adaptive" in op:
        return "adaptive"
    for name in ("max_pool", "avg_pool"):
        if name in op:
            return name
    return "interpolate" if op.startswith("upsample") else {"__getitem__": "slice", "im2col": "unfold"}.get(op, op)
