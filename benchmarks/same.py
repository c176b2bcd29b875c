"""Compare two versions of aliasfix: the plans of every model of the zoos, and the outputs of forty converted ones.

    python benchmarks/same.py dump FILE [--zoo timm smp] [--seconds N]   # resumes; one line of JSON a model, gzipped
    python benchmarks/same.py outputs FILE                               # an .npz
    python benchmarks/same.py compare OLD NEW [--renamed old=new ...] [--common]

``dump`` builds each model with random weights, and stores what ``aliasfix.inspect`` says with its default options, or
the error. timm's models are built on the meta device where that gives the same plan. The detectors of torchvision,
which take longest, come last; how often they call what they call for each object depends on their weights, which are
drawn under a fixed seed. ``outputs`` runs the models of ``same_models.py`` with fixed weights and inputs. ``compare``
takes two files of one kind, lists every difference, and exits with 1 if there is one. Both must be made with the same
versions of torch and of the zoos, on machines of one kind. Only the public interface of aliasfix is used.
"""

import argparse
import contextlib
import gc
import gzip
import json
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.progress import track
from same_models import CASES, run
from torch import nn
from torch.utils._pytree import tree_map_only
from zoo_models import ZOOS, Entry, entries

import aliasfix

DETECTORS = ("rcnn", "retinanet", "fcos", "ssd")  # in the names of torchvision's
INSTALLED = ("timm", "torchvision", "smp", "transformers")
RENAMED: dict[str, str] = {}  # keys of the old plans' JSON, at any depth, and what they are called in the new ones'
ADDED = {"links": []}  # what plans hold since, where nothing is done with it
TOLERANCE = 1e-6  # the largest difference of two outputs, relative to the old one's largest value


def dump(path: Path, zoos: list[str], seconds: float) -> None:
    """Append the plans that the file lacks."""
    done = plans(path) if path.exists() else {}
    todo = [entry for zoo in zoos for entry in entries(zoo) if not entry.left_out and _name(entry) not in done]
    todo.sort(key=_is_slow)  # which keeps the order otherwise
    end = time.monotonic() + seconds
    for entry in track(todo, "plans"):
        if time.monotonic() > end:
            break
        line = gzip.compress((json.dumps(_line(entry)) + "\n").encode(), mtime=0)
        with path.open("ab") as file:
            file.write(line)
        gc.collect()


def plans(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a dump by the model's name."""
    with gzip.open(path, "rt") as file:
        return {line["name"]: line for line in map(json.loads, file)}


def _name(entry: Entry) -> str:
    return f"{entry.zoo}:{entry.name}"


def _is_slow(entry: Entry) -> bool:
    return entry.zoo == "torchvision" and any(part in entry.name for part in DETECTORS)


def _line(entry: Entry) -> dict[str, Any]:
    line: dict[str, Any] = {"name": _name(entry), "version": entry.version, "torch": torch.__version__}
    start = time.process_time()
    try:
        _seed()
        model = _build(entry)
        _seed()
        example = entry.example(model) if entry.example else None
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        example = tree_map_only(torch.Tensor, lambda t: t.to(device), example)
        line["plan"] = json.loads(aliasfix.inspect(model, example_input=example).to_json())
    except Exception as error:
        line["error"] = re.sub(r"0x[0-9a-f]{6,}", "0x", f"{type(error).__name__}: {error}")
    return {**line, "seconds": round(time.process_time() - start, 1)}


def _seed() -> None:
    random.seed(0)
    torch.manual_seed(0)


def _build(entry: Entry) -> nn.Module:
    """A model of timm without its weights, unless it blurs by itself: a fixed kernel is told by its values."""
    if entry.zoo == "timm":
        with contextlib.suppress(Exception), torch.device("meta"):
            model = entry.build().eval()
            if not any("blur" in type(module).__name__.lower() for module in model.modules()):
                return model
    return entry.build().eval()


def outputs(path: Path) -> None:
    """Write the outputs of every case."""
    found: dict[str, np.ndarray] = {}
    for case in track(CASES, "outputs"):
        found |= run(case)
        gc.collect()
    with path.open("wb") as file:
        np.savez_compressed(file, **found)


def compare(old: Path, new: Path, renamed: Mapping[str, str], common: bool) -> list[str]:
    """The differences of two files, a line each; with ``common``, of what both have."""
    if old.suffix == ".npz":
        with np.load(old) as a, np.load(new) as b:
            return _compare_outputs(dict(a), dict(b), common)
    a, b = plans(old), plans(new)
    names = [name for name in a if name in b]
    found = [] if common else _missing(a, b)
    for name in names:
        for key in ("version", "torch"):
            if a[name][key] != b[name][key]:
                print(f"note: {name}: made with {key} {a[name][key]} and {b[name][key]}")
        one, other = ({key: line[key] for key in ("plan", "error") if key in line} for line in (a[name], b[name]))
        found += [f"{name}: {line}" for line in differences(_renamed(one, RENAMED | dict(renamed)), other)]
    failing = sum("error" in a[name] for name in names)
    print(f"{len(names)} models in both, {failing} of them with an error; {len(found)} differences")
    return found


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Every difference of two values of JSON, with the field it is in."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            where = f"{path}.{key}" if path else key
            if key not in old and key in ADDED and new[key] == ADDED[key]:
                continue
            if key not in old or key not in new:
                present = old if key in old else new
                yield f"{where}: only in the {'old' if key in old else 'new'} one, {_short(present[key])}"
            else:
                yield from differences(old[key], new[key], where)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{path}: {len(old)} items became {len(new)}"
        for index, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{path}[{index}]")
    elif type(old) is not type(new) or old != new:
        yield f"{path}: {_short(old)} became {_short(new)}"


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(part, names) for key, part in value.items()}
    return [_renamed(part, names) for part in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _missing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [f"{name}: not in the new file" for name in old if name not in new] + [
        f"{name}: not in the old file" for name in new if name not in old
    ]


def _compare_outputs(old: dict[str, np.ndarray], new: dict[str, np.ndarray], common: bool) -> list[str]:
    names = [name for name in old if name in new]
    found = [] if common else _missing(old, new)
    equal, worst = 0, 0.0
    for name in names:
        a, b = old[name].astype(np.float64), new[name].astype(np.float64)
        if np.array_equal(old[name], new[name], equal_nan=True):
            equal += 1
            continue
        error = float(np.abs(a - b).max() / (np.abs(a).max() or 1.0)) if a.shape == b.shape else np.inf
        worst = max(worst, error) if error == error else np.inf
        if not error <= TOLERANCE:
            found.append(f"{name}: differs by {error:.1e} of the scale")
    print(f"{equal} of {len(names)} outputs are bit-equal, the largest difference is {worst:.1e} of the scale")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    dumper = commands.add_parser("dump")
    dumper.add_argument("file", type=Path)
    dumper.add_argument("--zoo", nargs="+", choices=ZOOS, default=INSTALLED)
    dumper.add_argument("--seconds", type=float, default=float("inf"))
    commands.add_parser("outputs").add_argument("file", type=Path)
    comparer = commands.add_parser("compare")
    comparer.add_argument("old", type=Path)
    comparer.add_argument("new", type=Path)
    comparer.add_argument("--renamed", nargs="+", default=[], metavar="OLD=NEW", help="keys of the plans' JSON")
    comparer.add_argument("--common", action="store_true", help="pass over what only one file has")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.command == "dump":
        dump(options.file, options.zoo, options.seconds)
    elif options.command == "outputs":
        outputs(options.file)
    else:
        renamed = dict(pair.split("=", 1) for pair in options.renamed)
        found = compare(options.old, options.new, renamed, options.common)
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
