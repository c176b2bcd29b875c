"""Write the generated sections of the documents; with --check, only tell whether they are up to date.

A section stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

import ast
import inspect
import json
import sys
from pathlib import Path

from aliasfix.planning.rule import rules

ROOT = Path(__file__).parents[1]
EXAMPLE = "lp_pool"
HEADINGS = {
    "features": "features move",
    "consistency": "consistency",
    "agreement": "top-1 agreement",
}


def rule_table():
    """Each rule's operations and equations, from its docstrings."""
    rows = ["| rule | operations | before → after |", "|---|---|---|"]
    for rule in rules():
        operations = inspect.getdoc(type(rule)).split("\n\n")[0].replace("``", "`").replace("\n", " ").rstrip(".")
        rows.append(f"| [{rule.name}](rules/{rule.name}.py) | {operations} | {'<br>'.join(equations(rule))} |")
    return "\n".join(rows)


def equations(rule):
    """The indented lines that open a rule file's docstring."""
    title, block = inspect.getdoc(inspect.getmodule(type(rule))).split("\n\n")[:2]
    lines = block.splitlines()
    if "\n" in title or not all(line.startswith("    ") for line in lines):
        raise SystemExit(f"rules/{rule.name}.py: the docstring opens with a title and the rewrite, indented")
    return [f"`{' '.join(line.split())}`" for line in lines]


def photographs():
    """The measured table of ``benchmarks/photographs.py``."""
    result = load("photographs")
    original = result["original"]
    rows = [f"| filter | {' | '.join(HEADINGS.values())} | memory |", "|---|" + "---:|" * (len(HEADINGS) + 1)]
    for row in (original, *result["filters"]):
        shares = [f"{row[key]:.1%}" for key in HEADINGS]
        rows.append(f"| {row['filter']} | {' | '.join(shares)} | ×{row['bytes'] / original['bytes']:.2f} |")
    return "\n".join(rows)


def conversion():
    """One sentence of ``benchmarks/conversion.py``."""
    result = load("conversion")
    seconds, memory = result["median"]["seconds"], result["median"]["extra_over_weights"]
    largest = max(result["models"], key=lambda model: model["extra_mib"])
    count, slowest = len(result["models"]), max(result["models"], key=lambda model: model["seconds"])
    return (
        f"Converting takes a median of {seconds:.2f} s of processor time on one thread, over {count} models "
        f"of torchvision and timm; the slowest, {slowest['model']}, {slowest['seconds']:.1f} s. In place it needs a "
        f"median of {memory:.0%} of the weights' memory on top; the most, {largest['model']}, "
        f"{largest['extra_mib']:.0f} MiB."
    )


def recovery():
    """The tables of ``benchmarks/recovery.py``: means over the runs, and from the lowest to the highest."""
    networks = load("recovery")["networks"]
    photographed = {name: runs for name, runs in networks.items() if name == "EfficientNet-Lite0"}
    small = {name: runs for name, runs in networks.items() if name not in photographed}
    sections = {"EfficientNet-Lite0 on photographs": photographed, "Small networks on digits": small}
    return "\n\n".join(recovered(heading, members) for heading, members in sections.items() if members)


def recovered(heading, networks):
    """One table: a row for each network, filter and stage."""
    rows = {
        (name, filter, stage): [run["original"] if stage == "original" else run[filter][stage] for run in runs]
        for name, runs in networks.items()
        for filter in (key for key in runs[0] if key != "original")
        for stage in ("original", *runs[0][filter])
    }
    first = next(iter(rows.values()))[0]
    shown = [key for key in first if isinstance(first[key], float)]
    titles = " | ".join(RECOVERED.get(key, key) for key in shown)
    lines = [f"## {heading}", "", f"| network | filter | stage | {titles} | seconds |"]
    lines.append("|---|---|---|" + "---:|" * (len(shown) + 1))
    for of, runs in rows.items():
        cells = [spread([run[key] for run in runs]) for key in shown]
        seconds = f"{max(run['seconds'] for run in runs):.0f}" if "seconds" in runs[0] else ""
        lines.append(f"| {' | '.join([*of, *cells, seconds])} |")
    return "\n".join(lines)


RECOVERED = {"self1": "self, 1 px", "self2": "self, 2 px", "self4": "self, 4 px", "self8": "self, 8 px"}


def methods():
    """The agreement that each method of calibration gives back."""
    folds = load("recovery-methods")["agreement"]
    rows = [f"| `{method}` | {spread([fold[method] for fold in folds])} |" for method in folds[0]]
    return "\n".join(["| method | agreement |", "|---|---:|", *rows])


def spread(values):
    """A mean in per cent, with the lowest and the highest."""
    mean, low, high = (f"{100 * value:.1f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low}–{high})"


def models():
    """Ratios to the original of ``benchmarks/models.py``."""
    rows = [
        "| model | limit | setting | aliasfix | antialiased-cnns | timm `aa_layer` |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for result in reports("models"):
        for row in result["models"]:
            for setting, times in row["settings"].items():
                ratios = [ratio(times, name, "original") for name in ("aliasfix", "antialiased-cnns")]
                ratios.append(ratio(times, "timm aa_layer", "timm"))
                rows.append(
                    f"| {row['model']} | {row['limit']:.2f} | {conditions(result, setting)} | {' | '.join(ratios)} |"
                )
    return "\n".join(rows) if len(rows) > 2 else "Not measured yet."


def memory():
    """What training keeps, in ``benchmarks/models.py``."""
    names = ("original", "aliasfix", "antialiased-cnns")
    rows = [f"| model | setting | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for result in reports("models"):
        for row in result["memory"]:
            kept = [row["saved_mib"][name] for name in names]
            figures = [f"{mib:,.0f} MiB ({mib / kept[0]:.2f})" for mib in kept]
            rows.append(f"| {row['model']} | {conditions(result, '16 images')} | {' | '.join(figures)} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured yet."


def ratio(times, name, base):
    """One network's time to another's, "fails" where it does not run, and nothing where there is none."""
    if name not in times:
        return ""
    return f"{times[name]['ms'] / times[base]['ms']:.2f}" if "ms" in times[name] else "fails"


def layers():
    """Milliseconds of ``benchmarks/layers.py``."""
    names = ("copy of the input", "strided pool", "aliasfix", "antialiased-cnns", "timm", "kornia")
    rows = [f"| layer | setting | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for result in reports("layers"):
        for row in result["rows"]:
            times = [f"{row['times'][name]['ms']:.1f}" if name in row["times"] else "" for name in names]
            setting = conditions(result, f"{row['mode']}, {row['layout']}, {row['dtype']}")
            rows.append(f"| {row['layer']} | {setting} | {' | '.join(times)} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured yet."


def reports(name):
    """Every result of one benchmark: after the plain one those of other devices, threads and compilers."""
    paths = (ROOT / "benchmarks" / "results").glob(f"{name}*.json")
    return [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: path.stem)]


def conditions(result, setting):
    """A setting with what the command says of threads, device and compiler."""
    options = result["command"].partition(".py")[2].replace("--threads 1", "").replace("--", "").split()
    return ", ".join([setting, *([" ".join(options)] if options else [])])


def load(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def example():
    """The rule file that CONTRIBUTING explains."""
    return f"```python\n{(ROOT / 'rules' / f'{EXAMPLE}.py').read_text()}```"


def metric():
    """The metric file that CONTRIBUTING explains."""
    return f"```python\n{(ROOT / 'tests' / 'comparison' / 'flips.py').read_text()}```"


def house():
    """The first line of every file's docstring."""
    rows = []
    for path in sorted(ROOT.glob("aliasfix/**/*.py")):
        text = ast.get_docstring(ast.parse(path.read_text()))
        name = path.relative_to(ROOT).as_posix()
        if text:
            rows.append(f"| `{name}` | {text.splitlines()[0].replace('``', '`')} |")
    return "\n".join(["| file | what it is |", "|---|---|", *rows])


def torch_versions():
    """The table of ``benchmarks/torch_versions.py``: what passed of each area's tests, and what failed."""
    rows = load("torch-versions")
    areas = list(rows[0]["areas"])
    versions = ["torch", "torchvision", "timm", "python"]
    table = [f"| {' | '.join(versions + areas)} |", "|---" * len(versions) + "|---:" * len(areas) + "|"]
    for row in rows:
        cells = [tested(row["areas"].get(area, {})) for area in areas]
        table.append(f"| {' | '.join([row[name].split('+')[0] for name in versions] + cells)} |")
    return "\n".join(table)


def tested(counts):
    """How many tests passed, and how many failed where some did."""
    passed, failed = counts.get("passed", 0), counts.get("failed", 0)
    return "not run" if not passed + failed else f"{passed:,} pass" + (f", {failed} fail" if failed else "")


def gathers():
    """What keeping gathers and blurring before them does, in ``benchmarks/gathers.py``."""
    lines = ["| network | converted | agreement | consistency |", "|---|---|---:|---:|"]
    for name, ways in load("gathers")["networks"].items():
        for way, runs in ways.items():
            cells = [spread([value / 100 for value in column]) for column in zip(*runs, strict=True)]
            cells = [f"{cells[0]} dB", ""] if len(cells) == 1 else cells
            lines.append(f"| {name} | {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


TASKS = {
    "massc": ("mASSC", "share"), "maisc": ("mAISC", "share"), "mIoU": ("mIoU", "share"), "mAP": ("mAP", "share"),
    "box_jitter": ("box jitter", "px"), "score_variation": ("score varies", "share"),
    "found_again": ("found again", "share"),
}  # fmt: skip


def tasks():
    """The table of ``benchmarks/tasks.py``: means over the seeds, and from the lowest to the highest."""
    runs = load("tasks")["runs"]
    tables = []
    for name, stages in runs[0].items():
        keys = [key for key in TASKS if key in stages["original"]]
        rows = [f"| {name} | {' | '.join(TASKS[key][0] for key in keys)} |", "|---|" + "---:|" * len(keys)]
        for stage in stages:
            cells = [_task([run[name][stage][key] for run in runs], TASKS[key][1]) for key in keys]
            rows.append(f"| {stage} | {' | '.join(cells)} |")
        tables.append("\n".join(rows))
    return "\n\n".join(tables)


def _task(values, unit):
    if unit == "share":
        return spread(values)
    return f"{sum(values) / len(values):.2f} ({min(values):.2f}–{max(values):.2f}) {unit}"


def phase():
    """What adaptive phase keeps of a network and does for camera shifts, in ``benchmarks/phase.py``."""
    folds = load("phase")["networks"]
    lines = ["| EfficientNet-Lite0 | agreement | consistency | self, 1 px | self, 4 px |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {' | '.join(_cells(folds, name))} |" for name in folds[0]]
    return "\n".join(lines)


def _cells(folds, name):
    return [spread([fold[name][key] for fold in folds]) for key in folds[0][name]]


def phase_times():
    """Times of adaptive phase as ratios to the original's, in ``benchmarks/phase.py``."""
    times = load("phase")["times"]
    ways = [way for way in next(iter(times.values())) if way != "original"]
    lines = [f"| network | {' | '.join(ways)} |", "|---|" + "---:|" * len(ways)]
    for name, row in times.items():
        cells = [f"{row[way]['ms'] / row['original']['ms']:.2f}" for way in ways]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


LAYERS = {
    "relu": "ReLU",
    "polynomial, published": "polynomial as published",
    "filtered, ideal": "filtered ReLU, ideal",
    "filtered, kaiser": "filtered ReLU, Kaiser",
    "filtered, alias-free-torch": "filtered ReLU, alias-free-torch",
}
NETWORKS = {"afc": "`afc`", "afc, published layers": "`afc` with the published layers", "stylegan3": "`stylegan3`"}


def alias_free_layers():
    """Milliseconds of the layers of ``benchmarks/alias_free.py cost``."""
    return _milliseconds("layer", _turned(load("alias-free-cost")["layers"]), LAYERS, {})


def alias_free_networks():
    """Milliseconds of the networks of ``benchmarks/alias_free.py cost``."""
    return _milliseconds("network", load("alias-free-cost")["networks"], {}, NETWORKS)


def _turned(table):
    """Rows for columns."""
    return {row: {column: table[column][row] for column in table} for row in next(iter(table.values()))}


def _milliseconds(title, table, rows, columns):
    names = list(next(iter(table.values())))
    lines = [f"| {title} | {' | '.join(columns.get(name, name) for name in names)} |", "|---|" + "---|" * len(names)]
    for row, cells in table.items():
        times = (cells[name]["ms"] for name in names)
        shown = (f"{time:.0f}" if time >= 10 else f"{time:.1f}" for time in times)
        lines.append(f"| {rows.get(row, row)} | {' | '.join(shown)} |")
    return "\n".join(lines)


METHODS = {"blur": "blur (`bin5`, circular, whole stem)", "afc": "`afc`"}


def alias_free_digits():
    """Digits right under shifts, in ``benchmarks/alias_free.py digits``."""
    lines = ["| method | clean | whole pixels | half pixels | fractions |", "|---|---|---|---|---|"]
    for name, found in load("alias-free-digits")["methods"].items():
        lines.append(
            f"| {METHODS.get(name, name)} | {' | '.join(f'{value:.0f}' for value in found['mean'].values())} |"
        )
    return "\n".join(lines)


WAYS = {
    "original": ("the original", ""),
    "raw tri3": ("`convert(net)`", "approximate"),
    "tri3, calibrated": ("`convert(net)`, then `calibrate`", "approximate"),
    "tri3, calibrated, then adaptive phase": ('the same weights with `phase="adaptive"`', "approximate"),
    "adaptive phase, zero borders": (
        '`filter="delta1", phase="adaptive", padding="zero", stem="whole"`',
        "exact up to the borders",
    ),
    "aps (circular borders): exact": ('`method="aps"`', "exact for whole pixels, circular"),
}


def ways():
    """The methods side by side, in ``benchmarks/phase.py``."""
    folds = load("phase")["networks"]
    lines = ["| | guarantee | agreement | consistency | self, 4 px |", "|---|---|---:|---:|---:|"]
    for name, (call, guarantee) in WAYS.items():
        agreement, consistency, _, self4 = _cells(folds, name)
        lines.append(f"| {call} | {guarantee} | {agreement} | {consistency} | {self4} |")
    return "\n".join(lines)


SECTIONS = {
    "README.md": {"ways": ways, "rules": rule_table, "photographs": photographs, "conversion": conversion},
    "docs/performance.md": {"models": models, "memory": memory, "layers": layers},
    "CONTRIBUTING.md": {"house": house, "example": example, "metric": metric},
    "docs/tools.md": {"torch-versions": torch_versions},
    "docs/tasks.md": {"tasks": tasks},
    "docs/alias-free.md": {
        "layers": alias_free_layers,
        "networks": alias_free_networks,
        "digits": alias_free_digits,
    },
    "docs/adaptive-phase.md": {"phase": phase, "phase-times": phase_times},
    "docs/recovery.md": {"recovery": recovery, "methods": methods, "gathers": gathers},
}


def generate(name):
    """The document's text as it should be."""
    text = (ROOT / name).read_text()
    for section, content in SECTIONS[name].items():
        before, opening, rest = text.partition(f"<!-- {section} -->\n")
        _, closing, after = rest.partition(f"<!-- /{section} -->")
        if not closing:
            raise SystemExit(f"{name} has no section {section}")
        text = f"{before}{opening}{content()}\n{closing}{after}"
    return text


def main(arguments):
    stale = [name for name in SECTIONS if generate(name) != (ROOT / name).read_text()]
    if "--check" in arguments:
        if stale:
            print(f"out of date: {', '.join(stale)}; run: make docs")
        return bool(stale)
    for name in stale:
        (ROOT / name).write_text(generate(name))
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
