"""The command as a process: its entry points, and what it does on a terminal and off one."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from aliasfix.cli import app

from .conftest import said

SCRIPT = str(Path(sys.executable).with_name("aliasfix"))


def process(home: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=600)


def test_a_factory_in_the_working_directory(home: Path) -> None:
    result = process(home, SCRIPT, "inspect", "tiny_nets:make_net", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["converted"] == 2
    assert said(result.stderr) == ""


def test_errors_are_one_line(home: Path) -> None:
    result = process(home, sys.executable, "-m", "aliasfix", "convert", "tiny_nets:nothing", "-o", "out.pth")
    assert result.returncode == 1
    assert result.stdout == ""
    assert said(result.stderr).startswith("aliasfix: error: tiny_nets has no factory 'nothing'")
    assert said(result.stderr).count("\n") == 1


def test_a_terminal_gets_colours_and_progress(home: Path) -> None:
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [SCRIPT, "inspect", "tiny_nets:make_net"], cwd=home, stdout=there, stderr=there, env=environment
    ) as running:
        os.close(there)
        text = b""
        while chunk := _read(here):
            text += chunk
    os.close(here)
    assert running.returncode == 0
    assert b"building tiny_nets:make_net" in text
    assert b"\x1b[1m" in text  # the table's head


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_shells_complete_the_commands() -> None:
    environment = {"_ALIASFIX_COMPLETE": "complete_bash", "COMP_WORDS": "aliasfix con", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, prog_name="aliasfix", env=environment)
    assert result.stdout.split() == ["convert"]
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
