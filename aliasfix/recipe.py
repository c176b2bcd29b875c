"""The options of a conversion."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import filters
from .errors import AliasfixError


@dataclass(frozen=True)
class Recipe:
    """All options of a conversion. A recipe is frozen, and is written to JSON and read from it.

    The options of the command line are made of these fields, with the help texts in their metadata.

    Args:
        filter: a name from `aliasfix.filters.names()`, or explicit taps, which are scaled to sum 1.
        padding: the padding of the blur: ``reflect``, ``replicate``, ``zero`` or ``circular``. ``circular`` also wraps
            the borders of every operation of the model that pads.
        stem: the policy for strided convolutions that read the model's input. ``paper`` keeps those of stride 2 and 3
            and patch embeddings, and splits an overlapping stride 4. ``full`` converts all but patch embeddings,
            ``whole`` converts these, too. ``keep`` converts none.
        average: ``keep`` blurs after average pooling; ``replace`` replaces average pooling by the blur (Zhang, ICML
            2019, section 3).
        gather: the policy for operations that keep every sample of a map and move neighbours to channels (patch
            merging, ``pixel_unshuffle``, slices at all offsets). ``keep`` does not convert them, since they drop
            nothing. ``blur`` blurs before them. Stored recipes without this option mean ``blur``.
        include: module-path globs. Only operations in these modules are converted, whatever ``stem`` and ``gather``.
        exclude: module-path globs. Operations in these modules are not converted.
        budget: the most multiply-adds of the converted model, as a multiple of the original's. The sites that add most
            per sampled value are kept until the others fit. Default: no limit.
        memory_budget: the same for the bytes of activations.
        phase: which samples a strided operation keeps. ``fixed`` keeps those of the original. ``adaptive`` keeps, for
            each image, the polyphase component of the largest norm (APS; Chaman & Dokmanić, CVPR 2021).
        phase_norm: the norm that ``adaptive`` compares: 1, 2 or ``inf``.
        activation: pointwise nonlinearities. ``filtered`` evaluates them on ``oversampling`` times the samples and
            filters what folds (Karras et al., NeurIPS 2021). ``polynomial`` replaces activations by polynomials of
            degree 2, with coefficients for every channel in the state_dict (Michaeli et al., CVPR 2023).
        oversampling: by which factor ``filtered`` activations are oversampled.
        norm: ``alias-free`` replaces layer normalisation over the channels by the alias-free one (Michaeli et al.).
        pool: ``average`` replaces max pooling, which cannot be alias-free, by average pooling.

    Raises:
        AliasfixError: an unknown filter or choice, a budget below 1, or two options that exclude each other.

    >>> Recipe.from_json(Recipe("bin5", stem="full").to_json()) == Recipe("bin5", stem="full")
    True
    """

    filter: str | Sequence[float] = field(
        default="tri3", metadata={"help": "The low-pass filter. A wider filter aliases less and blurs more."}
    )
    padding: str = field(
        default="reflect",
        metadata={
            "choices": ("reflect", "replicate", "zero", "circular"),
            "help": "The padding of the blur.",
        },
    )
    stem: str = field(
        default="paper",
        metadata={
            "choices": ("paper", "full", "whole", "keep"),
            "help": "Strided convolutions that read the input: keep those that are expensive to evaluate densely "
            "(paper), convert all but patch embeddings (full), convert all (whole), or keep all (keep).",
        },
    )
    average: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "replace"),
            "help": "Blur after average pooling, or replace it by the blur.",
        },
    )
    gather: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "blur"),
            "help": "Keep operations that move all neighbouring samples to channels (patch merging, pixel_unshuffle), "
            "or blur before them.",
        },
    )
    include: Sequence[str] | None = field(
        default=None,
        metadata={"metavar": "GLOB", "help": "Convert only in these modules, such as 'layer3.*'. Repeatable."},
    )
    exclude: Sequence[str] | None = field(
        default=None, metadata={"metavar": "GLOB", "help": "Do not convert in these modules. Repeatable."}
    )
    budget: float | None = field(
        default=None,
        metadata={
            "metavar": "RATIO",
            "help": "The most multiply-adds of the converted model, such as 1.1 times the original's. The most "
            "expensive steps are skipped.",
        },
    )
    memory_budget: float | None = field(
        default=None,
        metadata={"metavar": "RATIO", "help": "The same for the memory of activations, such as 1.2."},
    )
    phase: str = field(
        default="fixed",
        metadata={
            "choices": ("fixed", "adaptive"),
            "help": "Keep the samples that the original keeps, or for each image those of the largest norm (APS).",
        },
    )
    phase_norm: float = field(
        default=2.0, metadata={"choices": (1.0, 2.0, math.inf), "help": "The norm that --phase adaptive compares."}
    )

    activation: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "filtered", "polynomial"),
            "help": "Keep activations, filter what they alias, or replace them by polynomials, which must be fitted.",
        },
    )
    oversampling: int = field(
        default=2,
        metadata={"choices": (2, 3, 4, 6, 8), "help": "The factor by which --activation filtered oversamples."},
    )
    norm: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "alias-free"),
            "help": "Keep layer normalisation, or take its variance over channels and positions (AF-LN).",
        },
    )
    pool: str = field(
        default="keep",
        metadata={
            "choices": ("keep", "average"),
            "help": "Keep max pooling, or replace it by average pooling, which can be alias-free.",
        },
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter", filters.parse(self.filter))
        for option in dataclasses.fields(self):
            given, choices = getattr(self, option.name), option.metadata.get("choices")
            if choices is not None and given not in choices:
                raise AliasfixError(f"{option.name}={given!r}: choose one of {', '.join(map(str, choices))}")
        if self.phase == "adaptive" and self.average == "replace":
            raise AliasfixError("phase='adaptive' blurs after averages, as average='keep' does: leave average out")
        if self.phase == "adaptive" and self.filter == filters.IDEAL:
            raise AliasfixError("filter='ideal' leaves nothing that depends on the phase: leave phase='adaptive' out")
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
        """Return the recipe as a JSON object, with one key per option."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Return the recipe that `to_json` wrote.

        Raises:
            AliasfixError: ``text`` is not a JSON object, or has an option that this version does not know.
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
            return cls(**{"gather": "blur", **options})  # as versions did that had no such option
        except TypeError as error:
            raise AliasfixError(f"the recipe has an option of the wrong type: {error}") from None
