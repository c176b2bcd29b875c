"""Long work says how far it is, from its first second: the commands in lines, Python on a terminal only."""

import re
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from aliasfix.cli import console
from aliasfix.measure import circular_consistency
from aliasfix.text import progress
from aliasfix.text.progress import Work


def slow(x: torch.Tensor) -> torch.Tensor:
    time.sleep(0.2)
    return x.mean((2, 3))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.3)
    monkeypatch.setattr(progress, "NEXT", 0.15)


def test_a_command_says_in_lines_what_it_does_and_how_far_it_is(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with console.working("comparing"):
        circular_consistency(slow, torch.ones(4, 3, 8, 8), passes=2, batch_size=4)
    out, err = capsys.readouterr()
    assert out == ""
    first, *later = err.splitlines()
    assert re.fullmatch(r"aliasfix: comparing: consistency(, 4 inputs)? …", first)
    assert later
    assert all(re.fullmatch(r"aliasfix: comparing: consistency, \d+ inputs … \(\d s\)", line) for line in later)


def test_python_says_nothing_without_a_terminal_and_quiet_commands_neither(
    soon: None, capsys: pytest.CaptureFixture[str]
) -> None:
    circular_consistency(slow, torch.ones(2, 3, 8, 8), passes=2)
    with console.working("comparing", quiet=True):
        circular_consistency(slow, torch.ones(2, 3, 8, 8), passes=2)
        progress.tell("images: 2")
    progress.tell("images: 2")
    assert capsys.readouterr() == ("", "")


def test_python_shows_it_on_a_terminal(
    soon: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a terminal
    circular_consistency(lambda x: x.mean((2, 3)), torch.ones(2, 3, 8, 8))
    assert capsys.readouterr() == ("", "")
    circular_consistency(slow, torch.ones(4, 3, 8, 8), passes=2, batch_size=4)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"consistency, \d+ inputs …", err)


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with console.working("comparing"):
        circular_consistency(lambda x: x.mean((2, 3)), torch.ones(2, 3, 8, 8))
    assert capsys.readouterr() == ("", "")


def test_warnings_are_told_as_they_come_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    with console.working("converting"):
        for _ in range(2):
            warnings.warn("it is late", stacklevel=1)
        assert capsys.readouterr().err == "aliasfix: warning: it is late\n"


def test_a_piece_of_known_length_says_how_long_it_takes_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    with Work("fine-tuning"), Work("training", 400, "step") as work:
        work.advance(100, "epoch 1: loss 0.5")
        assert progress.now() == "fine-tuning: training, 100 of 400 steps, epoch 1: loss 0.5"
        monkeypatch.setattr(work, "_start", time.monotonic() - 100)
        assert progress.now().endswith("loss 0.5, about 5 min left")
    assert progress.now() == ""


def test_work_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError), Work("comparing"), Work("shifts"):
        raise RuntimeError
    assert progress.now() == ""


@pytest.mark.slow
def test_a_command_without_a_terminal_speaks_in_its_second_second(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("import time\ndef net():\n    time.sleep(30)\n")
    command = [sys.executable, "-m", "aliasfix", "inspect", "nets:net"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "aliasfix: building nets:net …\n"
    process.kill()
    process.communicate()


def test_threads_have_their_own_work(capsys: pytest.CaptureFixture[str]) -> None:
    """A command's that ends first leaves nothing for the others to speak through."""
    begun, ended = threading.Event(), threading.Event()

    def other() -> str:
        with progress.reporting("exporting"), Work("writing", 3, "file") as work:
            work.advance()
            begun.set()
            ended.wait(60)
            return progress.now()

    with ThreadPoolExecutor(1) as threads:
        with progress.reporting("comparing"):
            theirs = threads.submit(other)
            begun.wait(60)
            with Work("shifts", 2, "input") as work:
                work.advance()
                ours = progress.now()
        ended.set()
        assert theirs.result() == "exporting: writing, 1 of 3 files"
    assert ours == "comparing: shifts, 1 of 2 inputs"
    progress.tell("a line for no command")
    assert capsys.readouterr().err == ""


def test_a_course_names_the_stage_and_the_time_left_by_how_fast_this_machine_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    course = progress.Course({"converting": 10, "measuring": 30})
    first = course.stage("converting")
    assert first.text == "[--------------------] 1 of 2, converting, about 40 s left"
    clock[0] += 20  # half as fast as expected
    second = course.stage("measuring")
    assert second.text == "[=====---------------] 2 of 2, measuring, about 60 s left"
    clock[0] += 30
    assert second.text == "[============--------] 2 of 2, measuring, about 30 s left"
    clock[0] += 100
    assert second.text == "[===================-] 2 of 2, measuring, about 3 s left"
    with console.working(second):
        assert progress.now() == second.text
