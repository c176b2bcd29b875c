"""``aliasfix run``: a script is run as python runs it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]
Fails = Callable[..., str]

SCRIPT = """
import pickle, sys
import beside

class Mine:
    pass

print(__name__, __file__, sys.argv[1:], sys.path[0])
assert type(pickle.loads(pickle.dumps(Mine()))) is Mine

def fail():
    raise KeyError("mine")

if "--quit" in sys.argv:
    sys.exit(int(sys.argv[-1]))
fail()
"""


@pytest.fixture
def script(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (home / "scripts").mkdir()
    (home / "scripts" / "beside.py").write_text("")
    path = home / "scripts" / "script.py"
    path.write_text(SCRIPT)
    return path


def test_options_and_exit_codes_are_the_scripts(run: Run, script: Path) -> None:
    for code in (0, 7):
        result = run("run", "scripts/script.py", "--help", "-q", "--quit", code)
        assert result.exit_code == code
        arguments = ["--help", "-q", "--quit", str(code)]
        assert result.stdout == f"__main__ {script} {arguments} {script.parent}\n"


def test_a_traceback_is_the_scripts(home: Path, script: Path) -> None:
    ours, theirs = (
        subprocess.run([sys.executable, *how, "scripts/script.py", "--x"], cwd=home, capture_output=True, text=True)
        for how in (("-m", "aliasfix", "run"), ())
    )
    assert ours.stderr.endswith("KeyError: 'mine'\n")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_no_such_script(fails: Fails) -> None:
    assert "no such script: nowhere.py" in fails("run", "nowhere.py", code=2)


def test_a_script_that_is_no_python(run: Run, script: Path) -> None:
    script.write_text("this is no python")
    result = run("run", script)
    assert result.exit_code == 1
    assert "SyntaxError" in result.stderr
