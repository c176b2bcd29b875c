"""Convert every model of a zoo and check what came out.

    python benchmarks/zoo.py run timm --jobs 2          # resumes; one line of JSON a model
    python benchmarks/zoo.py table                      # renders docs/zoo.md from the results

For each model: build, inspect, convert with ``delta1`` in place and compare the output with the original's (weights
drawn as the laws ask; in float64 where float32 rounds to more than 1e-5), convert with ``tri3`` and compare shapes
and keys, count the strided ATen operations that the plan does not account for, and revert. Models too large for the
memory at hand are built on the meta device: shapes and accounting only, and marked so.
"""

import argparse
import collections
import json
import multiprocessing
import os
import sys
import time
import warnings
import zlib
from operator import itemgetter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.progress import track
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from zoo_models import ZOOS, Entry, entries

import aliasfix
from aliasfix import surgery
from aliasfix.checks.account import unaccounted
from aliasfix.checks.laws import redraw
from aliasfix.planning.planner import make_plan
from aliasfix.planning.rule import parameters
from aliasfix.tracing.example import traces
from aliasfix.tracing.nested import map_tensors, tensors
from aliasfix.tracing.trace import Trace
from aliasfix.tracing.undisturbed import undisturbed

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
LARGE = 1.5e9  # parameters; a larger model is checked on meta
REMARK = (
    "Every model keeps its class, keys and shapes, reverts, and leaves no strided ATen operation unaccounted for,",
    "or stands under other. `delta1` compared: the output was computed before and after; the rest was checked on",
    "the meta device.",
    "Inconclusive: with the weights that were drawn the network is chaotic, and a change of its input by 1e-15 moves",
    "its output as far as the conversion does.",
)
_BOUNDS = {"float32": 1e-5, "float64": 1e-9}  # of delta1's error
ODD_PARTS, TRAINED_PARTS = (0, 1, 2), (0, 1)  # of the thirteen parts of a zoo: run at an odd size too, trained a step


def check(entry: Entry, device: str = "cpu", large: float = LARGE) -> dict[str, Any]:
    """One line of results; a model of more than ``large`` parameters is checked on meta."""
    line: dict[str, Any] = {"zoo": entry.zoo, "name": entry.name, "version": entry.version, "torch": torch.__version__}
    if entry.left_out:
        return {**line, "left_out": entry.left_out}
    try:
        torch.manual_seed(0)
        _reset_peak()
        _check(entry, device, large, line)
    except Exception as error:
        line["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    line["peak_mb"] = _peak_mb()
    return line


def _check(entry: Entry, device: str, large: float, line: dict[str, Any]) -> None:
    model, on_meta = _build(entry, device, large)
    line["parameters"] = sum(p.numel() for p in model.parameters())
    line["meta"] = on_meta
    example = entry.example(model) if entry.example else None
    start = time.process_time()
    recorded, _, (args, kwargs) = traces(model, _to(example, model), parameters())
    line["seconds_trace"] = round(time.process_time() - start, 3)
    line["input"] = [list(t.shape) for t in tensors((args, kwargs))]
    start = time.process_time()
    plan = make_plan(model, aliasfix.Recipe(), recorded)
    line["seconds_plan"] = round(time.process_time() - start, 3)
    line["sites"] = dict(collections.Counter(step.rule for step in plan))
    line["converted"] = len(plan.converted)
    line["forms"] = dict(collections.Counter(step.form for step in plan.converted))
    line["kept"] = dict(collections.Counter(step.reason for step in plan.kept))
    line["lattice"] = [plan.lattice.merges, plan.lattice.aligned_before, plan.lattice.aligned_after]
    line["drifts"] = len(plan.lattice.drifts)
    line["notes"] = list(plan.notes)
    keys, kind = list(model.state_dict()), type(model)
    args = tuple(_batch_of_one(a) for a in args)
    if plan.converted and not on_meta:  # else nothing is changed that could differ
        _identity(entry, model, args, kwargs, recorded, line)
    shapes = _shapes(model, args) if plan.converted else None
    start = time.process_time()
    aliasfix.convert(model, "tri3", example_input=args, inplace=True)
    line["seconds_convert"] = round(time.process_time() - start, 3)
    line["keys_kept"] = list(model.state_dict()) == keys and type(model) is kind
    line["unaccounted"] = unaccounted(model, plan, args, kwargs)
    if shapes is not None:
        line["shapes_kept"] = _shapes(model, args) == shapes
    if plan.converted:
        aliasfix.revert(model, inplace=True)
    line["reverts"] = aliasfix.report(model) is None


def _identity(
    entry: Entry,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    recorded: list[Trace],
    line: dict[str, Any],
) -> None:
    """The largest difference of the output under ``delta1``, relative to the original's largest value."""
    redraw(model)
    plan = make_plan(model, aliasfix.Recipe("delta1"), recorded)
    odd = _odd(args) if part(entry.name) in ODD_PARTS else None
    if odd is not None and not _runs(model, odd):
        odd = None  # the architecture takes one size only
    for dtype in (torch.float32, torch.float64):
        line["dtype"] = str(dtype).removeprefix("torch.")
        line["delta1_error"] = _change(model, plan, args, dtype)
        if odd is not None:
            line["delta1_error_odd"] = _change(model, plan, odd, dtype)
        if max(line["delta1_error"], line.get("delta1_error_odd", 0.0)) <= _BOUNDS["float32"]:
            break  # else rounding of a deep network, or a mistake: float64 tells
    if line["delta1_error"] > _BOUNDS["float64"] and line["dtype"] == "float64":
        line["rounding"] = _rounding(model, _cast(args, torch.float64))
    model.float()


def part(name: str) -> int:
    """Which thirteenth of a zoo a model is in, for samples that do not depend on what else there is."""
    return zlib.crc32(name.encode()) % 13


def _change(model: nn.Module, plan: aliasfix.Plan, args: tuple[Any, ...], dtype: torch.dtype) -> float:
    model.to(dtype)
    args = _cast(args, dtype)
    before = list(tensors(_run(model, args)))
    surgery.apply(model, plan)
    after = list(tensors(_run(model, args)))
    surgery.undo(model, plan)
    return _difference(before, after)


def _rounding(model: nn.Module, args: tuple[Any, ...]) -> float:
    """How far a change of the input by 1e-15, in float64, moves the output: what no comparison can tell apart."""
    before = list(tensors(_run(model, args)))
    nudged = map_tensors(args, lambda t: t * (1 + 1e-15) if t.is_floating_point() else t)
    return _difference(before, list(tensors(_run(model, nudged))))


def _cast(args: tuple[Any, ...], dtype: torch.dtype) -> Any:
    return map_tensors(args, lambda t: t.to(dtype) if t.is_floating_point() else t)


def _shapes(model: nn.Module, args: tuple[Any, ...]) -> list[tuple[int, ...]] | None:
    """The output's shapes on fake tensors; None where they depend on values, as the boxes of a detector do."""
    try:
        with undisturbed(model, training=False), FakeTensorMode(allow_non_fake_inputs=True) as fake:
            return [tuple(t.shape) for t in tensors(_run(model, map_tensors(args, fake.from_tensor)))]
    except Exception:
        return None


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    worst, scale = 0.0, 1e-30
    for a, b in zip(before, after, strict=True):
        if a.is_floating_point() and a.numel():
            scale = max(scale, a.abs().max().item())
            worst = max(worst, (a - b).abs().nan_to_num(torch.inf).max().item())
    return worst / scale


def _odd(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return map_tensors(
        args, lambda t: torch.rand(*t.shape[:-2], t.shape[-2] + 1, t.shape[-1] + 5).to(t) if t.dim() > 3 else t
    )


def _runs(model: nn.Module, args: tuple[Any, ...]) -> bool:
    try:
        _run(model, args)
    except Exception:
        return False
    return True


def _run(model: nn.Module, args: tuple[Any, ...]) -> Any:
    with torch.no_grad():
        torch.manual_seed(0)
        return model.eval()(*args)


def _build(entry: Entry, device: str, large: float) -> tuple[nn.Module, bool]:
    if entry.zoo in ("timm", "torchvision"):
        with torch.device("meta"):
            try:
                size = sum(p.numel() for p in entry.build().parameters())
            except Exception:
                size = 0
        if size > large:
            with torch.device("meta"):
                return entry.build().eval(), True
    return entry.build().eval().to(device), False


def _to(value: Any, model: nn.Module) -> Any:
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    return None if value is None else map_tensors(value, lambda t: t.to(place))


def _batch_of_one(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() > 3 and not value.is_meta:
        return torch.rand((1, *value.shape[1:])).to(value)
    return value


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> int:
    status = Path("/proc/self/status").read_text()
    resident = int(status.split("VmHWM:")[1].split()[0]) // 1024
    return max(resident, torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0)


def _work(task: tuple[str, str, str]) -> dict[str, Any]:
    zoo, name, device = task
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    warnings.simplefilter("ignore")
    entry = next(entry for entry in entries(zoo) if entry.name == name)
    line = check(entry, device)
    if device == "cuda":
        torch.cuda.empty_cache()
    return line


def run(zoo: str, jobs: int, device: str, names: list[str], seconds: float) -> None:
    """Check the models that the results lack."""
    path = RESULTS / f"zoo-{zoo}.jsonl"
    done = {json.loads(line)["name"] for line in path.read_text().splitlines()} if path.exists() else set()
    tasks = [(zoo, e.name, device) for e in entries(zoo) if e.name not in done and (not names or e.name in names)]
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=60) as pool, path.open("a") as file:
        for line in track(pool.imap_unordered(_work, tasks), zoo, total=len(tasks)):
            file.write(json.dumps(line) + "\n")
            file.flush()
            if time.monotonic() > end:
                pool.terminate()
                break


def verdict(line: dict[str, Any]) -> str:
    """What a reader looks up."""
    if "left_out" in line:
        return f"left out: {line['left_out']}"
    if "error" in line:
        return f"fails: {line['error'][:120]}"
    if line["unaccounted"] or not line["keys_kept"] or not line.get("shapes_kept", True):
        return "WRONG: " + (line["unaccounted"][0] if line["unaccounted"] else "keys or shapes")
    if max(line.get("delta1_error", 0), line.get("delta1_error_odd", 0)) > _BOUNDS[line.get("dtype", "float64")]:
        if line.get("rounding", 0) > line["delta1_error"] / 10:
            return f"inconclusive: rounding alone moves the output by {line['rounding']:.0e}"
        return f"WRONG: delta1 is off by {line['delta1_error']:.1e}"
    return "converted" if line["converted"] else "nothing to convert"


def table() -> None:
    """Render docs/zoo.md."""
    out = [
        "# Every model",
        "",
        "Generated by `python benchmarks/zoo.py table` from `benchmarks/results/zoo-*.jsonl`.",
        "",
    ]
    lines = {zoo: _results(zoo) for zoo in ZOOS}
    columns = ("zoo", "version", "models", "converted", "nothing to convert", "left out", "other")
    out += [f"| {' | '.join(columns)} | `delta1` compared |"]
    out += ["|---|---|---|---|---|---|---|---|"]
    out += [_summary(zoo, found) for zoo, found in lines.items() if found]
    out += ["", *REMARK, *_seconds()]
    out += ["", *_equivariance(), "", "## Lookup", ""]
    for zoo, found in lines.items():
        if not found:
            continue
        out += [f"### {zoo}", "", "| model | verdict | sites | converted | left alone, and why | delta1 | checked on |"]
        out += ["|---|---|---|---|---|---|---|"]
        out += [_row(line) for line in found]
        out.append("")
    PAGE.write_text("\n".join(out) + "\n")


def _seconds() -> list[str]:
    """The figures of benchmarks/conversion.py."""
    found = json.loads((RESULTS / "conversion-timm.json").read_text())
    spread = f"{found['median']:.2f} s at the median, {found['percentile_95']:.2f} s at the 95th percentile"
    return ["", f"A conversion of a model of timm takes {spread}, on one thread", f"(`{found['command']}`)."]


def _equivariance() -> list[str]:
    """The figures of benchmarks/equivariance.py."""
    found = json.loads((RESULTS / "equivariance.json").read_text())["distances"]
    filters = list(next(iter(found.values())))
    out = [
        "## Image to image",
        "",
        "Distance from equivariance under one-pixel shifts, every network circular as a whole,",
    ]
    out += ["weights drawn at random, mean of 8 inputs (`python benchmarks/equivariance.py`).", ""]
    out += [f"| network | original | {' | '.join(filters[1:])} |", "|---|" + "---:|" * len(filters)]
    for name, row in found.items():
        out.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in row.values())} |")
    return out


def _results(zoo: str) -> list[dict[str, Any]]:
    path = RESULTS / f"zoo-{zoo}.jsonl"
    return sorted(map(json.loads, path.read_text().splitlines()), key=itemgetter("name")) if path.exists() else []


def _summary(zoo: str, found: list[dict[str, Any]]) -> str:
    counts = collections.Counter(verdict(line).split(":")[0] for line in found)
    compared = sum("delta1_error" in line for line in found)
    known = [counts.pop(key, 0) for key in ("converted", "nothing to convert", "left out")]
    cells = (zoo, found[0]["version"], len(found), *known, sum(counts.values()), compared)
    return f"| {' | '.join(map(str, cells))} |"


def _row(line: dict[str, Any]) -> str:
    if "sites" not in line:
        return f"| {line['name']} | {verdict(line)} | | | | | |"
    sites = ", ".join(f"{count} {rule}" for rule, count in sorted(line["sites"].items()))
    kept = "; ".join(f"{count}: {reason}" for reason, count in line["kept"].items())
    error = f"{line['delta1_error']:.0e}" if "delta1_error" in line else ""
    where = "meta" if line["meta"] else line.get("dtype", "")
    return f"| {line['name']} | {verdict(line)} | {sites} | {line['converted']} | {kept} | {error} | {where} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("zoo", choices=ZOOS)
    runner.add_argument("names", nargs="*")
    runner.add_argument("--jobs", type=int, default=1)
    runner.add_argument("--device", default="cpu")
    runner.add_argument("--seconds", type=float, default=float("inf"))
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        table()
    else:
        RESULTS.mkdir(exist_ok=True)
        run(options.zoo, options.jobs, options.device, options.names, options.seconds)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
