"""What the user asked for."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import filters
from .errors import AliasfixError

_CHOICES = {
    "padding": ("reflect", "replicate", "zero", "circular"),
    "stem": ("paper", "full", "keep"),
    "average": ("keep", "replace"),
}


@dataclass(frozen=True)
class Recipe:
    """All options of a conversion, frozen; JSON out and in.

    Args:
        filter: a name of `aliasfix.filters.names()`, or explicit taps (scaled to sum 1).
        padding: how the blur continues the map past its border; ``reflect``, ``replicate``, ``zero``
            or ``circular`` (which wraps the dense operation's input too).
        stem: the strided convolutions that see the input first. ``paper`` leaves stride 2-3 and patch
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

    filter: str | Sequence[float] = "tri3"
    padding: str = "reflect"
    stem: str = "paper"
    average: str = "keep"
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    budget: float | None = None
    memory_budget: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter", filters.parse(self.filter))
        for option, choices in _CHOICES.items():
            if getattr(self, option) not in choices:
                raise AliasfixError(f"{option}={getattr(self, option)!r}: choose one of {', '.join(choices)}")
        for option, counted in (("budget", "multiply-adds"), ("memory_budget", "activations")):
            ratio = getattr(self, option)
            number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
            if ratio is not None and not (number and 1 <= ratio < math.inf):
                raise AliasfixError(f"{option}={ratio!r}: give a multiple of the original's {counted}, at least 1")
        for option in ("include", "exclude"):
            globs = getattr(self, option)
            if globs is not None:
                globs = (globs,) if isinstance(globs, str) else tuple(globs)
                if not all(isinstance(glob, str) for glob in globs):
                    raise AliasfixError(f"{option} takes module-path globs, not {globs!r}")
                object.__setattr__(self, option, globs)

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
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(options, dict) or not set(options) <= known:
            unknown = sorted(set(options) - known) if isinstance(options, dict) else options
            raise AliasfixError(f"the recipe has options this version does not know: {unknown}")
        try:
            return cls(**options)
        except TypeError as error:
            raise AliasfixError(f"the recipe has an option of the wrong type: {error}") from None
