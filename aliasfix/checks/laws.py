"""The laws of a conversion, checked on the user's own model."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import surgery
from ..conversion import convert, unblurred
from ..edits.inserted import is_inserted
from ..errors import AliasfixError
from ..layers.build import is_low_pass_layer
from ..layers.ladder import Ladder
from ..planning.plan import Plan
from ..planning.rule import by_name
from ..running import copied, evaluating, where
from ..text.printing import Tabular
from ..text.wording import listing
from ..tracing.example import traces
from ..tracing.nested import tensors
from .account import unaccounted

if TYPE_CHECKING:
    from rich.table import Table  # otherwise only where a table is made: ``import aliasfix`` is quick


@dataclass(frozen=True)
class Law:
    """One law: its name, whether it holds, and what was seen."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification(Tabular):
    """A line per law; ``ok`` if all hold."""

    laws: tuple[Law, ...]

    @property
    def ok(self) -> bool:
        """Whether every law holds."""
        return all(law.ok for law in self.laws)

    def to_json(self) -> str:
        """The verification as JSON."""
        return json.dumps({"ok": self.ok, "laws": [dataclasses.asdict(law) for law in self.laws]})

    def __iter__(self) -> Iterator[Law]:
        return iter(self.laws)

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in ("law", "holds", "seen"):
            table.add_column(column, overflow="fold")
        for law in self.laws:
            table.add_row(law.name, "yes" if law.ok else "NO", law.detail)
        return table


@torch.inference_mode(False)
def verify(model: nn.Module, original: nn.Module | None = None, *, example_input: Any = None) -> Verification:
    """Check the laws of a conversion on a converted model; a law that fails is a line, never an exception.

    Args:
        model: a converted model; left as it is.
        original: the model before conversion, to compare with; else the model without its blurs.
        example_input: as for `convert`.

    Returns:
        A `Verification`: ``.ok``, iterable by law, prints as a table.

    Raises:
        AliasfixError: the model is not a converted one, or does not run on the input.

    >>> verify(convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)))).ok
    True
    """
    plan = surgery.executed(model)
    if plan is None:
        raise AliasfixError("verify takes a converted model: convert it first")
    _, _, (args, kwargs) = traces(model, example_input)
    if example_input is None:
        generator = torch.Generator().manual_seed(0)
        args = tuple(torch.rand(a.shape, generator=generator).to(a) for a in args)
    before = _still(original if original is not None else unblurred(model))
    after = _still(model)
    checks = {
        "delta1 gives the original's output": lambda: _identity(before, plan, args, kwargs),
        "the output keeps its shape": lambda: _shapes(before, after, args, kwargs),
        "state_dict keys are the original's, and load both ways": lambda: _keys(before, after),
        "revert gives the original's output, bit for bit": lambda: _reverts(before, after, args, kwargs),
        "a constant stays constant through every blur": lambda: _constants(after),
        "copies and pickles give the same output": lambda: _copies(model, args, kwargs),
        "nothing strided is unaccounted for": lambda: _accounts(after, plan, args, kwargs),
    }
    return Verification(tuple(_law(name, check) for name, check in checks.items()))


def _law(name: str, check: Callable[[], tuple[bool, str]]) -> Law:
    try:
        return Law(name, *check())
    except Exception as error:  # whatever the model raises is a law that does not hold
        return Law(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _still(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return list(tensors(model(*args, **kwargs)))


def _difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest absolute difference, relative to the largest absolute value of ``a``."""
    scale = max((x.abs().max().item() for x in a if x.is_floating_point()), default=1.0)
    each = [(x.double() - y.double()).abs().max() for x, y in zip(a, b, strict=True)]
    return (torch.stack(each).max().item() if each else 0.0) / (scale or 1.0)  # nan if one is


def redraw(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw gains, biases and running statistics away from 0 and 1, in place.

    A branch whose gain is 0, as in a freshly built residual block, would hide any mistake.

    >>> redraw(nn.BatchNorm2d(2)).weight.min() > 0.5
    tensor(True)
    """
    generator = torch.Generator().manual_seed(seed)
    saved = set(model.state_dict())
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            narrow = tensor.dim() < 2 or tensor.numel() == max(tensor.shape)
            if not tensor.is_floating_point() or not narrow or name not in saved:
                continue
            low, high = (-0.3, 0.3) if name.endswith(("bias", "running_mean", "beta")) else (0.6, 1.4)
            tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))
    return model


def _identity(before: nn.Module, plan: Plan, args: Any, kwargs: Any) -> tuple[bool, str]:
    if plan.recipe.average == "replace" or plan.recipe.padding == "circular":
        return True, "does not apply: the recipe replaces averages or wraps the borders"
    if others := {by_name(step.rule).purpose for step in plan.converted} - {"sampling"}:
        return True, f"does not apply: rules for {listing(sorted(others))} change what is computed"
    drawn = redraw(copied(before))
    recipe = dataclasses.replace(plan.recipe, filter="delta1")
    same = convert(drawn, recipe=recipe, example_input=kwargs or args)
    error = _difference(_run(drawn, args, kwargs), _run(same, args, kwargs))
    bound = 1e-5 if where(drawn).dtype != torch.float64 else 1e-12
    return error <= bound, f"largest difference {error:.1e} of the scale"


def _shapes(before: nn.Module, after: nn.Module, args: Any, kwargs: Any) -> tuple[bool, str]:
    shapes = [[tuple(t.shape) for t in _run(model, args, kwargs)] for model in (before, after)]
    return shapes[0] == shapes[1], f"{shapes[1]}" if shapes[0] == shapes[1] else f"{shapes[0]} became {shapes[1]}"


def _keys(before: nn.Module, after: nn.Module) -> tuple[bool, str]:
    own, added = _own(after)
    keys = [list(before.state_dict()), list(own)]
    if keys[0] != keys[1]:
        return False, f"differ in {sorted(set(keys[0]) ^ set(keys[1]))[:3]}"
    copy.deepcopy(before).load_state_dict(own, strict=True)
    copy.deepcopy(after).load_state_dict(before.state_dict() | added, strict=True)
    return True, f"{len(keys[0])} keys" + (f", and {len(added)} of polynomials" if added else "")


def _own(after: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state of a converted model, and that of the polynomials that were inserted."""
    state = after.state_dict()
    added = {key: value for key, value in state.items() if is_inserted(key.rpartition(".")[0])}
    return {key: value for key, value in state.items() if key not in added}, added


def _reverts(before: nn.Module, after: nn.Module, args: Any, kwargs: Any) -> tuple[bool, str]:
    reference = copied(before)
    reference.load_state_dict(_own(after)[0])
    outputs = zip(_run(reference, args, kwargs), _run(unblurred(after), args, kwargs), strict=True)
    same = all(torch.equal(a, b) for a, b in outputs)
    return same, "equal" if same else "not equal"


def _constants(after: nn.Module) -> tuple[bool, str]:
    blurs = [module for module in after.modules() if is_low_pass_layer(module)]
    worst = 0.0
    if not blurs[:1] or blurs[0].padding != "zero":
        for blur in blurs:
            ones = torch.ones((1, 2, *(8 * s for s in blur.rate)), dtype=blur.kernel.dtype, device=blur.kernel.device)
            with Ladder():  # for layers whose phase adapts
                worst = max(worst, (blur(ones) - 1).abs().max().item())
    return worst <= 1e-2 if blurs and blurs[0].kernel.dtype.itemsize < 4 else worst <= 1e-5, f"{len(blurs)} blurs"


def _copies(model: nn.Module, args: Any, kwargs: Any) -> tuple[bool, str]:
    with evaluating(model):
        wanted = _run(model, args, kwargs)
    for name, twin in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
        twin.eval()
        if not all(torch.equal(a, b) for a, b in zip(wanted, _run(twin, args, kwargs), strict=True)):
            return False, f"{name} differs"
    return True, "deepcopy and pickle are equal"


def _accounts(after: nn.Module, plan: Plan, args: Any, kwargs: Any) -> tuple[bool, str]:
    missing = unaccounted(after, plan, args, kwargs)
    return not missing, missing[0] if missing else f"{len(plan)} sampling operations"
