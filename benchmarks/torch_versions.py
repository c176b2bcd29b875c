"""Run the tests with one version of torch, and keep what held.

    python benchmarks/torch_versions.py 2.9.1 [--python python3.10] [--environment DIR] [-- PYTEST ARGS]

It makes a virtual environment with that torch and the torchvision that fits (in DIR, which is used again if it is
there), installs this project in it, runs the tests, and writes a row of ``results/torch-versions.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "torch-versions.json"
PACKAGES = ("torch", "torchvision", "timm")
AREAS = {  # by the beginning of a test's name; the first that fits
    "torch.compile": (
        "test_compilers",
        "test_lives_on::test_compiles",
        "test_tools::test_torch_compile",
        "test_fast_paths",
    ),
    "torch.export": ("test_lives_on::test_exports", "test_tools::test_torch_export", "cli.test_export"),
    "ONNX": ("test_tools::test_onnx", "test_tools::test_static"),
    "laws": ("test_laws", "test_lattice", "test_reference", "test_architectures"),
    "files": ("test_s", "test_checkpoint", "test_bit", "test_old", "test_hub", "test_load", "test_timm"),
    "everything else": ("",),
}


def install(environment: Path, version: str, python: str) -> Path:
    """The interpreter of an environment with this project and one version of torch."""
    interpreter = environment / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python, "-m", "venv", environment], check=True)
        constraint = environment / "constraint.txt"
        constraint.write_text(f"torch=={version}\n")
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]"]
        subprocess.run(pip, check=True, env=os.environ | {"PIP_CONSTRAINT": str(constraint)})
    return interpreter


def versions(interpreter: Path) -> dict[str, str]:
    """The versions that an environment has."""
    code = f"import importlib.metadata as m, json, platform; v = {{n: m.version(n) for n in {PACKAGES}}}; "
    code += "print(json.dumps({'python': platform.python_version(), **v}))"
    found: dict[str, str] = json.loads(subprocess.check_output([interpreter, "-c", code], text=True))
    return found


def run(interpreter: Path, args: list[str]) -> dict[str, dict[str, int]]:
    """How many tests passed, failed and were skipped in each area."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [interpreter, "-m", "pytest", "-n", "2", "-q", f"--junitxml={report}", *args]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        counts = {area: {"passed": 0, "failed": 0, "skipped": 0} for area in AREAS}
        for case in cases:
            name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
            area = next(area for area, starts in AREAS.items() if name.startswith(starts))
            kinds = {child.tag for child in case}
            kind = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            counts[area][kind] += 1
            if kind == "failed":
                print(f"failed: {name}", file=sys.stderr)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--environment", type=Path)
    options, args = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        interpreter = install(options.environment or Path(folder), options.version, options.python)
        row = {**versions(interpreter), "areas": run(interpreter, [arg for arg in args if arg != "--"])}
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else []
    same = {name: row[name] for name in ("python", *PACKAGES)}
    rows = [each for each in rows if {name: each[name] for name in same} != same] + [row]
    rows.sort(key=lambda each: [int(part) for part in each["torch"].split("+")[0].split(".")])
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
