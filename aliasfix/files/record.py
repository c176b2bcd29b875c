"""What is stored with the weights of a converted model: how it is built, what was done to it, and how to check it.

A record is JSON. Every part of it has a digest beside it, so that an edit by hand is found and named; the digests
are no signature, and whoever wants to deceive can write them anew. Nothing in a record is executed: the base is a name
of timm or torchvision, and the steps are those of `aliasfix.plan`.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from ..errors import AliasfixError
from ..images.preprocessing import Preprocessing
from ..layers.substitution import Substitution
from ..planning.plan import Lattice, Plan, Step
from ..planning.rule import rules
from ..recipe import Recipe
from ..text.wording import listing

FORMAT = 1
_PLAN = ("recipe", "steps", "lattice", "notes", "calibration", "cost", "traced", "links")
LIBRARIES = ("timm", "torchvision")
_FETCHING = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path"),
    *("cache_dir", "weights", "weights_backbone"),
)
_LARGEST_RATE = 64
_MOST_CHANNELS = 2**20  # of a polynomial


@dataclass(frozen=True)
class Record:
    """What aliasfix did to a model.

    Args:
        plan: the recipe and the executed steps.
        base: ``timm:NAME`` or ``torchvision:NAME``; None for a model that only its owner can build.
        base_args: what its factory is called with.
        version: of aliasfix, that wrote it.
        weights: the hash of the weights, see `digest_of_weights`; None where they are not known.
        fingerprint: of the model's output, see `aliasfix.fingerprint`; None where it was not run.
        images: how a folder's images are prepared for the model, as far as that is known; None where nothing is.
    """

    plan: Plan
    base: str | None = None
    base_args: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    weights: str | None = None
    fingerprint: Mapping[str, Any] | None = None
    images: Preprocessing | None = None

    def __post_init__(self) -> None:
        try:
            args = json.loads(json.dumps(dict(self.base_args)))
        except (TypeError, ValueError) as error:
            raise AliasfixError(f"the arguments {self.base_args} cannot be stored with the model: {error}") from None
        object.__setattr__(self, "base_args", args)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-able values, with the digests of its parts."""
        data = {
            "format": FORMAT,
            "version": self.version,
            "base": self.base,
            "base_args": self.base_args,
            **json.loads(self.plan.to_json()),
            "weights": self.weights,
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
        }
        if self.images is not None:
            data["images"] = self.images.to_dict()
        return data | {"digests": {name: _digest(part) for name, part in _parts(data).items()}}

    @classmethod
    def from_dict(cls, data: object) -> "Record":
        """The record that `to_dict` made.

        Raises:
            AliasfixError: it is none, of a newer format, edited by hand, or names code to import; says which part.
        """
        if not isinstance(data, dict) or type(data.get("format")) is not int:
            raise AliasfixError("its entry 'aliasfix' is not what aliasfix writes")
        if data["format"] > FORMAT:
            raise AliasfixError(
                f"written in format {data['format']} by aliasfix {data.get('version')}; this version reads "
                f"format {FORMAT}: pip install --upgrade aliasfix"
            )
        try:
            _check_digests(data)
            check_base(data["base"], data["base_args"])
            plan = Plan.from_json(json.dumps({key: data[key] for key in _PLAN if key in data}))
            _check_plan(plan)
            parts = (data["version"], data["weights"], data["fingerprint"])
            images = None if data.get("images") is None else Preprocessing.from_dict(data["images"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise AliasfixError(f"its entry 'aliasfix' is damaged: {type(error).__name__} {error}") from None
        version, weights, fingerprint = parts
        if not (isinstance(version, str) and isinstance(weights, str | None) and isinstance(fingerprint, dict | None)):
            raise AliasfixError("its entry 'aliasfix' is damaged: version, weights or fingerprint of another type")
        return cls(plan, data["base"], data["base_args"], version, weights, fingerprint, images)

    def difference(self, other: "Record") -> str | None:
        """How another record of the same model differs in what is built, in words; None if it does not."""
        if self.plan.recipe != other.plan.recipe:
            return recipe_difference(self.plan.recipe, other.plan.recipe)
        for name in ("base", "base_args"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} {getattr(self, name)!r}, not {getattr(other, name)!r}"
        return steps_difference(self.plan, other.plan)


def recipe_difference(one: Recipe, other: Recipe) -> str:
    """The options in which two recipes differ.

    >>> recipe_difference(Recipe("tri3"), Recipe("bin5", stem="full"))
    "filter 'tri3', not 'bin5'; stem 'paper', not 'full'"
    """
    pairs = zip(dataclasses.asdict(one).items(), dataclasses.asdict(other).items(), strict=True)
    return "; ".join(f"{name} {ours!r}, not {theirs!r}" for (name, ours), (_, theirs) in pairs if ours != theirs)


def steps_difference(one: Plan, other: Plan) -> str | None:
    """The first step in which two plans differ, None if they do not."""
    for ours, theirs in zip(one.steps, other.steps, strict=False):
        if ours != theirs:
            return f"the step {ours.op} in {ours.path or 'the model'!r}"
    return f"{len(one)} steps, not {len(other)}" if len(one) != len(other) else None


def digest_of_weights(state: Mapping[str, Any]) -> str:
    """A hash of every tensor's key, type, shape and bytes, whatever their order.

    >>> a, b = {"x": torch.ones(2), "y": torch.zeros(1)}, {"y": torch.zeros(1), "x": torch.ones(2)}
    >>> digest_of_weights(a) == digest_of_weights(b) != digest_of_weights({"x": torch.ones(2)})
    True
    """
    total = hashlib.sha256()
    for key in sorted(key for key, value in state.items() if isinstance(value, Tensor)):
        tensor = state[key].detach()
        total.update(tensor_head(key, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
        total.update(memoryview(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return f"sha256:{total.hexdigest()}"


def tensor_head(key: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What a tensor's bytes follow in `digest_of_weights`."""
    return json.dumps([key, dtype, list(shape)]).encode()


def _parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that has a digest of its own, by the name under which an edit of it is reported."""
    recipe = {f"recipe.{option}": value for option, value in data["recipe"].items()}
    steps = {f"steps[{n}]": step for n, step in enumerate(data["steps"])}
    rest = {key: value for key, value in data.items() if key not in ("recipe", "steps", "digests")}
    return rest | recipe | steps


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def _check_digests(data: Mapping[str, Any]) -> None:
    parts, digests = _parts(data), data["digests"]
    edited = [name for name, part in parts.items() if digests.get(name) != _digest(part)]
    edited += [name for name in digests if name not in parts]
    if edited:
        now = {name: json.dumps(parts[name]) if name in parts else "missing" for name in edited}
        shown = [name if len(value) > 60 else f"{name} (now {value})" for name, value in now.items()]
        raise AliasfixError(f"edited by hand since aliasfix wrote it: {listing(shown)}")


def check_base(base: object, args: object) -> None:
    """See that a base that a file names is nothing but a model's name with plain arguments.

    Raises:
        AliasfixError: it names code to import, or weights to fetch.
    """
    if not isinstance(args, dict):
        raise AliasfixError("its base_args are no arguments")
    if base is None:
        return
    library, _, name = str(base).partition(":")
    if library not in LIBRARIES:
        raise AliasfixError(f"its base {base!r} names code to import, which is refused: build the model yourself")
    if not re.fullmatch(r"\w[\w.-]*", name) or name == "aliasfix":
        raise AliasfixError(f"its base {base!r} is no name of a model")
    if fetching := [key for key in args if key in _FETCHING]:
        raise AliasfixError(f"its base_args name weights to fetch, which is refused: {listing(fetching)}")


def _is(value: object, kind: Any) -> bool:
    """Whether a value out of JSON is of a type, all through: JSON puts anything anywhere."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_is(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is(inner, parts[0]) for inner in value)
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, (int, float) if kind is float else kind):
        return False
    if not dataclasses.is_dataclass(value):
        return True
    hints = get_type_hints(type(value))
    return all(_is(getattr(value, part.name), hints[part.name]) for part in dataclasses.fields(value))


def _check_plan(plan: Plan) -> None:
    for part, kind in ((plan.steps, tuple[Step, ...]), (plan.lattice, Lattice), (plan.notes, tuple[str, ...])):
        if not _is(part, kind):
            raise AliasfixError("its entry 'aliasfix' is damaged: its steps, lattice or notes are of another type")
    known = {rule.name for rule in rules()}
    for step in plan:
        if step.rule not in known:
            raise AliasfixError(f"its steps name the rule {step.rule!r}, which this version does not have")
    for edit in plan.edits:
        if (named := getattr(edit, "rule", step.rule)) not in known:
            raise AliasfixError(f"its steps name the rule {named!r}, which this version does not have")
        if isinstance(edit.inserted, Substitution):
            if not _is(edit.inserted, Substitution) or not 0 <= edit.inserted.channels <= _MOST_CHANNELS:
                raise AliasfixError(
                    f"its steps insert {edit.inserted} in {edit.path!r}, which this version cannot build"
                )
        elif edit.inserted is not None:
            rates = (*edit.inserted.rate, *edit.inserted.stride)
            if not all(type(rate) is int and 1 <= rate <= _LARGEST_RATE for rate in rates):
                raise AliasfixError(f"its steps blur at the rate {rates} in {edit.path!r}: the most is {_LARGEST_RATE}")
