"""What a result was made with, and how it is written."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def write(name: str, command: str, result: dict[str, Any]) -> None:
    """Write ``benchmarks/results/NAME.json`` with the command, commit, versions and machine before the result."""
    versions = {package: importlib.metadata.version(package) for package in ("torch", "torchvision", "timm")}
    content = {
        "command": command,
        "commit": _git("log", "-1", "--format=%h", "--", "aliasfix", "rules"),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        **result,
    }
    path = RESULTS / f"{name}.json"
    text = json.dumps(content, indent=1)
    path.write_text(re.sub(r"\[[-\d.,\s]+\]", lambda numbers: "".join(numbers[0].split()), text) + "\n")
    print(f"\n{path.relative_to(ROOT)}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
