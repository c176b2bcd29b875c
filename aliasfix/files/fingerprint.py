"""A few values of a model's output on a fixed input: whether a loaded model is the one that was saved."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import running
from ..errors import AliasfixError, explaining
from ..text.wording import one_line
from ..tracing.example import inputs
from ..tracing.nested import tensors

TOLERANCE = 1e-3
_VALUES = 64
_LARGEST = 2**28  # values of an input that a file may ask for


def take(model: nn.Module, example_input: Any = None) -> dict[str, Any]:
    """The fingerprint of a model, JSON-able.

    Args:
        model: left as it was.
        example_input: as for `aliasfix.convert`; only its shapes and types are used.

    Raises:
        AliasfixError: the model does not run on the input.
    """
    args, kwargs = inputs(model, example_input)
    shapes = {str(n): value for n, value in enumerate(args)} | kwargs
    if not all(isinstance(value, Tensor) for value in shapes.values()):
        raise AliasfixError("the fingerprint needs inputs that are tensors: give example_input=, a tensor or several")
    asked = {
        name: {
            "shape": [1 if n == 0 and value.dim() > 1 else size for n, size in enumerate(value.shape)],
            "dtype": str(value.dtype).removeprefix("torch."),
        }
        for name, value in shapes.items()
    }
    return {"inputs": asked} | _values(_run(model, asked))


def difference(model: nn.Module, fingerprint: Mapping[str, Any]) -> str | None:
    """How a model's output differs from what a fingerprint says, in words; None within the tolerance.

    Raises:
        AliasfixError: it is no fingerprint, or the model does not run on its input.
    """
    try:
        asked = {str(name): _asked(spec) for name, spec in fingerprint["inputs"].items()}
        stored, scale = [float(v) for v in fingerprint["values"]], float(fingerprint["scale"])
        size = sum(math.prod(spec["shape"]) for spec in asked.values())
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise AliasfixError(f"the fingerprint is damaged: {one_line(error)}") from None
    if not (0 < size <= _LARGEST and all(side > 0 for spec in asked.values() for side in spec["shape"])):
        raise AliasfixError(f"the fingerprint asks for an input of {size} values")
    now = _values(_run(model, asked))
    if now["outputs"] != fingerprint.get("outputs"):
        return f"its output has the shapes {now['outputs']}, not {fingerprint.get('outputs')}"
    if len(stored) != len(now["values"]):
        raise AliasfixError(f"the fingerprint is damaged: {len(stored)} values, not {len(now['values'])}")
    worst = max((abs(a - b) for a, b in zip(now["values"], stored, strict=True)), default=0.0)
    if worst <= TOLERANCE * scale:
        return None
    return f"its output differs by {worst / (scale or 1):.1g} of the scale"


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode without gradients and seed the CPU's generator; afterwards both are as before."""
    with running.evaluating(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _asked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The shape and type of an input, as a file says them."""
    shape, dtype = [int(size) for size in list(spec["shape"])], str(spec["dtype"])
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"no type {dtype!r}")
    return {"shape": shape, "dtype": dtype}


def _run(model: nn.Module, asked: Mapping[str, Mapping[str, Any]]) -> list[Tensor]:
    like = running.where(model)
    args, kwargs = [], {}
    with explaining("the model does not run on the input of its fingerprint"):
        for name, spec in asked.items():
            dtype = getattr(torch, spec["dtype"])
            value = _drawn(spec["shape"], like.dtype if dtype.is_floating_point else dtype).to(like.device)
            if name.isdecimal():
                args.append(value)
            else:
                kwargs[name] = value
        with evaluating(model):
            output = list(tensors(model(*args, **kwargs)))
    return output


def _drawn(shape: list[int], dtype: torch.dtype) -> Tensor:
    """Values spread over [0, 1), the same on every machine: multiples of the golden ratio; whole numbers 0 and 1."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    spread = count * 0.6180339887498949 % 1
    return (spread if dtype.is_floating_point else spread.round()).to(dtype).reshape(shape)


def _values(output: list[Tensor]) -> dict[str, Any]:
    flat = [tensor.detach().double().cpu().flatten() for tensor in output if not tensor.is_complex()]
    together = torch.cat(flat) if flat else torch.empty(0, dtype=torch.float64)
    together = together.nan_to_num(0, 0, 0)
    at = torch.linspace(0, max(len(together) - 1, 0), _VALUES).long() if len(together) > _VALUES else slice(None)
    return {
        "outputs": [list(tensor.shape) for tensor in output],
        "scale": together.abs().max().item() if len(together) else 0.0,
        "values": together[at].tolist(),
    }
