"""The keys of a checkpoint as a model names them: without what wrappers and trainers put around the model.

Wrappers of single layers stand anywhere in a key. ``DistributedDataParallel``, an average of the weights or a
``LightningModule`` put one prefix before all keys of the model, and may have tensors of their own beside it.
"""

import itertools
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AliasfixError
from ..text.wording import listing
from .checkpoint import Checkpoint, State

_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_PARALLEL = "module."  # of DataParallel, DistributedDataParallel, DeepSpeed and AveragedModel
_AVERAGED = "n_averaged"  # AveragedModel counts its updates in its state


@dataclass(frozen=True)
class Match:
    """The weights of a checkpoint that are a model's.

    Args:
        state: the weights, with the model's keys as far as they fit.
        prefix: what their keys began with.
        remark: what the user should know of prefixes, in words; "" if nothing.
    """

    state: State
    prefix: str = ""
    remark: str = ""


def match(file: Checkpoint, own: Iterable[str]) -> Match:
    """The weights of a checkpoint under a model's keys.

    Where the file has every key of the model under one prefix, that is taken off, and keys without it are left out.
    Elsewhere a prefix of all keys is taken off if more keys fit without it.

    Args:
        file: the checkpoint.
        own: the model's keys.

    Raises:
        AliasfixError: the file has every key of the model under more than one prefix.

    >>> from pathlib import Path
    >>> file = Checkpoint(Path("net.ckpt"), {"state_dict": {"model.weight": 1, "model.bias": 2}})
    >>> found = match(file, ["weight", "bias"])
    >>> dict(found.state), found.prefix
    ({'weight': 1, 'bias': 2}, 'model.')
    """
    state, own = file.state, set(own)
    if state.keys() == own:
        return Match(state)
    names = _names(state, own)
    found = Counter(name[: -len(end)] for name in names.values() for end in _ends(name) if end in own)
    whole = [prefix for prefix, count in found.items() if count == len(own)]
    if len(whole) > 1:
        places = " and ".join(repr(prefix) if prefix else "no prefix" for prefix in whole[:4])
        raise AliasfixError(f"{file.path} has all keys of the model under {places}: give a file with one of them")
    shared = _shared(name for name in names.values() if not f".{name}".endswith(f".{_AVERAGED}"))
    prefix = whole[0] if whole else max(shared, key=lambda prefix: found[prefix])
    beside = [name for name in names.values() if not name.startswith(prefix)]
    kept: State = OrderedDict(
        (name[len(prefix) :], state[key]) for key, name in names.items() if name.startswith(prefix)
    )
    versions = getattr(state, "_metadata", None)  # of the modules: by them torch reads older layouts
    if versions is not None:
        paths = {_WRAPPERS.sub("", f"{path}."): version for path, version in versions.items()}
        cut = {path[len(prefix) :].removesuffix("."): paths[path] for path in paths if path.startswith(prefix)}
        kept = with_versions(kept, cut)
    return Match(kept, prefix, _remark(prefix, beside, shared, found))


def with_versions(items: Mapping[str, Any], versions: Any) -> State:
    """Return weights with the versions of a model's modules, by which torch reads older layouts."""
    result = OrderedDict(items)
    result._metadata = versions  # type: ignore[attr-defined]  # where torch looks for them
    return result


def _names(state: State, own: set[str]) -> dict[str, str]:
    """The keys of a file without wrappers, unless the model has such itself."""
    names = {key: _WRAPPERS.sub("", key) for key in state}
    clear = len(set(names.values())) == len(names) and not any(map(_WRAPPERS.search, own))
    return names if clear else {key: key for key in state}


def _ends(name: str) -> list[str]:
    """A key, and what is left of it behind each of its dots.

    >>> _ends("a.b.c")
    ['a.b.c', 'b.c', 'c']
    """
    parts = name.split(".")
    return [".".join(parts[n:]) for n in range(len(parts))]


def _shared(names: Iterable[str]) -> list[str]:
    """The prefixes that all keys have; first those that are taken off even where no more keys fit.

    >>> _shared(["module.net.a.b", "module.net.c"])
    ['module.', '', 'module.net.']
    """
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    parts = [level[0] for level in itertools.takewhile(lambda level: len(set(level)) == 1, levels)]
    prefixes = ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts) + 1)]
    return sorted(prefixes, key=lambda prefix: -len(prefix) if _silent(prefix) else 1)


def _silent(prefix: str) -> bool:
    """Whether a prefix is nothing but a wrapper's."""
    return not prefix.replace(_PARALLEL, "")


def _remark(prefix: str, beside: list[str], shared: list[str], found: Counter[str]) -> str:
    others = [name for name in beside if name != _AVERAGED]
    if others or not _silent(prefix):
        left = f"; {listing(others)} beside it is not read" if others else ""
        return f"its keys are read without their prefix {prefix!r}{left}"
    likely = max(found, key=lambda prefix: found[prefix], default="")
    if found[likely] > found[prefix]:
        return f"{found[likely]} keys of the model begin with {likely!r} in it, others do not"
    longest = max(shared, key=len)
    return "" if found[prefix] or _silent(longest) else f"all of its keys begin with {longest!r}"
