"""Files that are damaged, huge or half-written: an error in one line, and nothing else on the disk."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import aliasfix
from aliasfix.cli import app
from aliasfix.files import directory, streaming
from aliasfix.files.checkpoint import Checkpoint, read_checkpoint
from aliasfix.files.loading import load_weights
from aliasfix.files.record import Record, _digest, _parts, digest_of_weights
from aliasfix.files.saving import write_checkpoint
from aliasfix.planning.plan import Plan
from aliasfix.recipe import Recipe

from .checkpoints import RECORD, message, same

HUGE = """
import torch
from torch import nn
def make_huge(side=50_000):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, side), nn.Linear(side, side))
"""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))


# -- streaming -----------------------------------------------------------------------------------------------


def run(folder: Path, *command: object) -> "subprocess.CompletedProcess[str]":
    (folder / "huge_nets.py").write_text(HUGE)
    script = (
        "import resource, sys; from aliasfix.cli import main\n"
        "try: main()\n"
        "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=900
    )


def convert_huge(folder: Path, side: int, *, sparse: bool) -> tuple[str, int]:
    """Convert a checkpoint of ``side`` × ``side`` values by streaming: what is printed, and the peak in MiB."""
    shapes = {"0.weight": (4, 3, 3, 3), "0.bias": (4,), "5.weight": (side, 4), "5.bias": (side,),
              "6.weight": (side, side), "6.bias": (side,)}  # fmt: skip
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 4 * torch.Size(shape).numel()
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "huge.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if not sparse:
            file.write(random.Random(0).randbytes(end))
        file.truncate(8 + len(text) + end)
    arguments = ["huge_nets:make_huge", "--arg", f"side={side}", "--checkpoint", "huge.safetensors", "--stream"]
    done = run(folder, "convert", *arguments, "-o", "out.safetensors")
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.rpartition("peak")[2])


def test_a_stream_is_what_loading_gives(tmp_path: Path) -> None:
    printed, _ = convert_huge(tmp_path, 500, sparse=False)
    assert "out.safetensors: huge_nets:make_huge, 1 of" in printed
    before, after = (safetensors.torch.load_file(tmp_path / f"{name}.safetensors") for name in ("huge", "out"))
    assert all(torch.equal(after[key].nan_to_num(), value.nan_to_num()) for key, value in before.items())
    record = read_checkpoint(tmp_path / "out.safetensors").record
    assert record.weights == digest_of_weights(before)
    assert record.plan.recipe == aliasfix.Recipe()
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["huge.safetensors", "huge_nets.py", "out.safetensors", *_cache(tmp_path)]
    )


def _cache(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name == "__pycache__"]


@pytest.mark.slow
def test_a_stream_says_what_does_not_fit(tmp_path: Path) -> None:
    convert_huge(tmp_path, 100, sparse=True)
    arguments = ["huge_nets:make_huge", "--arg", "side=90", "--checkpoint", "huge.safetensors", "--stream"]
    done = run(tmp_path, "convert", *arguments, "-o", "x.safetensors")
    assert "5.weight 100x4 for 90x4" in done.stderr
    done = run(tmp_path, "convert", *arguments[:2], "side=100", *arguments[3:], "-o", "x.pth")
    assert "stays a .safetensors file" in done.stderr
    os.truncate(tmp_path / "huge.safetensors", 1000)
    with pytest.raises(aliasfix.AliasfixError, match="is damaged"):
        streaming.open_stream(tmp_path / "huge.safetensors")


@pytest.mark.slow
def test_ten_gigabytes_convert_in_less_than_one(tmp_path: Path) -> None:
    _, peak = convert_huge(tmp_path, 50_000, sparse=True)
    assert (tmp_path / "out.safetensors").stat().st_size > 10**10
    assert peak < 1000


# -- kills ---------------------------------------------------------------------------------------------------


def _write_for_ever(path: Path) -> None:
    number = 0
    while True:
        number += 1
        state = {"a": torch.full((2**20,), float(number)), "b": torch.tensor(number)}
        write_checkpoint(path, Checkpoint(path, {"state_dict": state}), RECORD)


def survives(folder: Path, suffix: str, kills: int) -> None:
    """Kill a process that writes one file again and again; the file is whole each time."""
    path, chance = folder / f"net{suffix}", random.Random(0)
    write_checkpoint(path, Checkpoint(path, {"state_dict": {"a": torch.zeros(2**20), "b": torch.tensor(0)}}), RECORD)
    values = set()
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            _write_for_ever(path)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        state = read_checkpoint(path).state
        assert (state["a"] == float(state["b"])).all()
        assert read_checkpoint(path).record.to_dict() == RECORD
        values.add(int(state["b"]))
    assert values != {0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_killed_write_leaves_a_whole_file(tmp_path: Path, suffix: str) -> None:
    survives(tmp_path, suffix, kills=20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_hundred_killed_writes_leave_a_whole_file(tmp_path: Path, suffix: str) -> None:
    survives(tmp_path, suffix, kills=100)


def _records() -> list[Record]:
    """Records of two conversions."""
    return [Record(Plan(Recipe(name), ()), "timm:resnet18", {}, "0") for name in ("tri3", "bin5")]


def _write_directories_for_ever(path: Path, records: list[Record]) -> None:
    number = 0
    while True:
        number += 1
        file = Checkpoint(path, {"state_dict": {"a": torch.full((2**16,), float(number)), "b": torch.tensor(number)}})
        directory.write_directory(path, file, records[number % len(records)], {"num_classes": number})


def _stop(*children: int) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def overwritten(path: Path, records: list[Record], kills: int) -> list[str]:
    """Kill a process that writes one directory over; what reading it says each time, "" where it is whole."""
    chance, found = random.Random(0), []
    directory.write_directory(
        path, Checkpoint(path, {"state_dict": {"a": torch.zeros(1), "b": torch.tensor(0)}}), records[0], {}
    )
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            _write_directories_for_ever(path, records)
        time.sleep(chance.uniform(0, 0.1))
        _stop(child)
        try:
            file = directory.read_directory(path)
        except aliasfix.AliasfixError as error:
            found.append(str(error))
            continue
        assert (file.state["a"] == float(file.state["b"])).all()
        found.append("")
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_write_leaves_a_directory_whole_or_says_so(tmp_path: Path) -> None:
    tri3, bin5 = _records()
    assert set(overwritten(tmp_path / "same", [tri3], kills=20)) == {""}
    for text in overwritten(tmp_path / "other", [tri3, bin5], kills=20):
        assert text == "" or "config.json and model.safetensors are of two conversions: filter" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net"])
def test_two_processes_write_one_output(tmp_path: Path, name: str) -> None:
    """What is read at any time is what one of them wrote."""
    path, children = tmp_path / name, []
    for _ in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            if name == "net":
                while True:  # the second to come to a new directory is told, and then writes over it
                    with contextlib.suppress(aliasfix.AliasfixError):
                        _write_directories_for_ever(path, _records()[:1])
            _write_for_ever(path)
    try:
        while not path.exists():
            time.sleep(0.01)
        for _ in range(30):
            file = directory.read_directory(path) if name == "net" else read_checkpoint(path)
            assert (file.state["a"] == float(file.state["b"])).all()
    finally:
        _stop(*children)


# -- damage --------------------------------------------------------------------------------------------------


def _flip(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _flip_early(data: bytearray, chance: random.Random) -> bytes:
    data[chance.randrange(min(len(data), 600))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _cut(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _repeat(data: bytearray, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(data)), chance.randrange(1, 64)
    return bytes(data[:start] + data[start : start + length] * 2 + data[start + length :])


DAMAGE: tuple[Callable[[bytearray, random.Random], bytes], ...] = (_flip, _flip_early, _cut, _repeat)


def _loaded(path: Path) -> str | dict[str, torch.Tensor]:
    """The weights that a file loads, or the error."""
    try:
        return dict(aliasfix.load(path, net()).state_dict())
    except aliasfix.AliasfixError as error:
        return str(error)


def fuzz(folder: Path, rounds: int) -> None:
    """Damage each format in turn, and load it: what was saved, or an error in one line."""
    model, chance = aliasfix.convert(net()), random.Random(0)
    saved = dict(model.state_dict())
    for name in ("a.pth", "b.safetensors"):
        aliasfix.save(model, folder / name)
    torch.save(saved, folder / "c.pth", _use_new_zipfile_serialization=False)
    file = read_checkpoint(folder / "a.pth")
    directory.write_directory(folder / "d", file, replace(file.record, base="timm:resnet18"), {"num_classes": 3})
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    refused = 0
    for number in range(rounds):
        path = list(whole)[number % len(whole)]
        path.write_bytes(chance.choice(DAMAGE)(bytearray(whole[path]), chance))
        loaded = _loaded(path if path.parent == folder else path.parent)
        if isinstance(loaded, str):
            assert "\n" not in loaded
            refused += 1
        else:
            assert same(loaded, saved), number
        path.write_bytes(whole[path])
    assert [path for path in sorted(folder.rglob("*")) if path.is_file()] == list(whole)
    assert refused > rounds / 2


@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    fuzz(tmp_path, 10_000)


WRONG = (None, True, -1, 0, 2**70, 1e308, float("nan"), "", "x" * 300, "../..", "\0", [], [[[]]], {}, {"a": 1}, "é\n")


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container in a nest of JSON, with every key or index of it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def lie(folder: Path, rounds: int) -> None:
    """Write nonsense into a record, and half of the time its digests anew: a model, or an error in one line."""
    chance = random.Random(0)
    aliasfix.save(aliasfix.convert(net()), folder / "a.pth")
    content = torch.load(folder / "a.pth")
    whole = json.dumps(content["aliasfix"])
    refused = 0
    for _ in range(rounds):
        record = json.loads(whole)
        inside, key = chance.choice(list(_places(record)))
        if chance.random() < 0.2:
            del inside[key]
        else:
            inside[key] = chance.choice(WRONG)
        with contextlib.suppress(Exception):  # where nothing is left to digest
            if chance.random() < 0.7:
                record["digests"] = {name: _digest(part) for name, part in _parts(record).items()}
        torch.save({**content, "aliasfix": record}, folder / "a.pth")
        loaded = _loaded(folder / "a.pth")
        if isinstance(loaded, str):
            assert "\n" not in loaded
            refused += 1
    assert refused > rounds / 4


@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_lies(tmp_path: Path) -> None:
    lie(tmp_path, 300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_lies(tmp_path: Path) -> None:
    lie(tmp_path, 10_000)


def test_a_compressed_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb/data.pkl", "w") as part:
        for _ in range(256):
            part.write(bytes(2**20))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(aliasfix.AliasfixError, match="is compressed") as error:
        read_checkpoint(path)
    assert str(path) in message(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100 * 1024


def _bomb() -> torch.Tensor:
    return torch.zeros(1).expand(2**20, 2**20)


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "claims 4398046511104 bytes": _bomb,
    "no plain tensor but torch.sparse_coo": lambda: torch.eye(3).to_sparse(),
    "no plain tensor but meta": lambda: torch.empty(3, device="meta"),
    "no plain tensor but torch.quint8": lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.quint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("expected", TENSORS)
def test_tensors_that_are_not_in_the_file(tmp_path: Path, expected: str) -> None:
    path = tmp_path / "a.pth"
    aliasfix.save(aliasfix.convert(net()), path)
    content = torch.load(path)
    content["state_dict"]["0.weight"] = TENSORS[expected]()
    torch.save(content, path)
    assert "0.weight" in str(_loaded(path))
    assert expected in str(_loaded(path))


def test_names_that_paint_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"\x1b[2J\nfine": torch.zeros(1)}, path)
    with pytest.raises(aliasfix.AliasfixError) as error:
        load_weights(net(), read_checkpoint(path))
    assert r"\x1b[2J\nfine" in message(error)
    version = Record(Plan(Recipe(), ()), None, {}, "\x1b[2J")
    write_checkpoint(path, Checkpoint(path, {"state_dict": net().state_dict()}), version.to_dict())
    printed = CliRunner().invoke(app, ["inspect", str(path)]).stdout
    assert r"by aliasfix \x1b[2J" in printed
    assert "\x1b" not in printed
