"""What the user asked for."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import filters
from .errors import AliasfixError


@dataclass(frozen=True)
class Recipe:
    """All options of a conversion, frozen; JSON out and in.

    The command line takes its options from these fields: the metadata say how it names their values and explains them.

    Args:
        filter: a name of `aliasfix.filters.names()`, or explicit taps (scaled to sum 1).
        padding: how the blur continues the map past its border; ``reflect``, ``replicate``, ``zero``
            or ``circular`` (which wraps the dense operation's input too).
        stem: the strided convolutions that read the model's input. ``paper`` leaves stride 2-3 and patch
            embeddings alone and splits an overlapping stride 4; ``full`` converts all but patch
            embeddings; ``keep`` none.
        average: ``keep`` average pooling and blur after it, or ``replace`` it by the blur (Zhang, ICML 2019,
            section 3).
        include: module-path globs; only these are converted, whatever the stem policy says. A
            glob that names a module covers what is inside it.
        exclude: module-path globs that are left alone.
        budget: the most multiply-adds that the converted model may make, as a multiple of the original's; the
            sites that add most for each value they sample are left out until the rest fits. None for no limit.
        memory_budget: the same for the bytes of its activations.

    Raises:
        AliasfixError: an unknown filter or choice, or a budget below 1.

    >>> Recipe.from_json(Recipe("bin5", stem="full").to_json()) == Recipe("bin5", stem="full")
    True
    """

    filter: str | Sequence[float] = field(
        default="tri3", metadata={"help": "The low-pass filter; a wider one aliases less and blurs more."}
    )
    padding: str = field(
        default="reflect",
        metadata={
            "choices": ("reflect", "replicate", "zero", "circular"),
            "help": "How the blur goes on past a border.",
        },
    )
    stem: str = field(
        default="paper",
        metadata={
            "choices": ("paper", "full", "keep"),
            "help": "The first strided convolutions: left alone where dense evaluation is costly (paper), "
            "all converted (full), or none (keep).",
        },
    )
    average: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "replace"),
            "help": "Blur after average pooling, or put the blur in its place.",
        },
    )
    include: Sequence[str] | None = field(
        default=None,
        metadata={"metavar": "GLOB", "help": "Convert only in these modules, such as 'layer3.*'. Repeatable."},
    )
    exclude: Sequence[str] | None = field(
        default=None, metadata={"metavar": "GLOB", "help": "Leave these modules alone. Repeatable."}
    )
    budget: float | None = field(
        default=None,
        metadata={
            "metavar": "RATIO",
            "help": "The most multiply-adds that the converted model may make, such as 1.1 times the original's: "
            "what adds most is left alone.",
        },
    )
    memory_budget: float | None = field(
        default=None,
        metadata={"metavar": "RATIO", "help": "The same for the memory of its activations, such as 1.2."},
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter", filters.parse(self.filter))
        for option in dataclasses.fields(self):
            given, choices = getattr(self, option.name), option.metadata.get("choices")
            if choices is not None and given not in choices:
                raise AliasfixError(f"{option.name}={given!r}: choose one of {', '.join(choices)}")
        for name, counted in (("budget", "multiply-adds"), ("memory_budget", "activations")):
            ratio = getattr(self, name)
            number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
            if ratio is not None and not (number and 1 <= ratio < math.inf):
                raise AliasfixError(f"{name}={ratio!r}: give a multiple of the original's {counted}, at least 1")
        for name in ("include", "exclude"):
            globs = getattr(self, name)
            if globs is not None:
                globs = (globs,) if isinstance(globs, str) else tuple(globs)
                if not all(isinstance(glob, str) for glob in globs):
                    raise AliasfixError(f"{name} takes module-path globs, not {globs!r}")
                object.__setattr__(self, name, globs)

    def to_json(self) -> str:
        """The recipe as a JSON object, one key an option."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that `to_json` wrote.

        Raises:
            AliasfixError: not a JSON object, or an option this version does not know.
        """
        try:
            options = json.loads(text)
        except (TypeError, json.JSONDecodeError) as error:
            raise AliasfixError(f"the recipe is not valid JSON: {error}") from None
        known = {option.name for option in dataclasses.fields(cls)}
        if not isinstance(options, dict) or not set(options) <= known:
            unknown = sorted(set(options) - known) if isinstance(options, dict) else options
            raise AliasfixError(f"the recipe has options this version does not know: {unknown}")
        try:
            return cls(**options)
        except TypeError as error:
            raise AliasfixError(f"the recipe has an option of the wrong type: {error}") from None
