"""Saving: what a write leaves behind, also where it fails."""

import contextlib
import os
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from aliasfix import AliasfixError
from aliasfix.files.checkpoint import Checkpoint, read_checkpoint
from aliasfix.files.formats import writable
from aliasfix.files.saving import check_file, write_checkpoint

from .checkpoints import RECORD, loads, message, net, same


@pytest.mark.parametrize("suffix", writable())
def test_a_written_file_reads_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    write_checkpoint(path, Checkpoint(path, {"state_dict": net().state_dict()}), RECORD)
    assert read_checkpoint(path).record.to_dict() == RECORD
    assert loads(path)
    assert os.listdir(tmp_path) == [path.name]


TENSORS = {
    "no axis": lambda: torch.tensor(3),
    "none": lambda: torch.empty(0, 4),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).t(),
    "channels last": lambda: torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last),
    **{str(dtype): lambda dtype=dtype: torch.tensor([1, 0, 1]).to(dtype) for dtype in (
        torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64,
    )},
}  # fmt: skip


@pytest.mark.parametrize("suffix", writable())
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_stay_as_they_are_or_are_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    path, tensor = tmp_path / f"net{suffix}", TENSORS[kind]()
    state = {"a.b": tensor, "tied": tensor}
    with contextlib.suppress(AliasfixError):
        write_checkpoint(path, Checkpoint(path, {"state_dict": state}), RECORD)
    if suffix not in (".pth", ".safetensors") and not path.exists():
        return
    found = read_checkpoint(path).state
    assert same(dict(found), state)
    assert all(value.dtype == tensor.dtype for value in found.values())


def test_safetensors_keeps_its_metadata(tmp_path: Path) -> None:
    path, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    safetensors.torch.save_file(dict(net().state_dict()), path, {"format": "pt", "author": "somebody"})
    write_checkpoint(out, read_checkpoint(path), RECORD)
    with safetensors.safe_open(out, "pt") as file:
        assert file.metadata()["author"] == "somebody"
        assert file.metadata()["aliasfix"].startswith("{")
    assert same(safetensors.torch.load_file(out), safetensors.torch.load_file(path))


@pytest.mark.parametrize("suffix", writable())
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(AliasfixError) as error:
            write_checkpoint(path, Checkpoint(path, {"state_dict": {"a": torch.ones(100_000)}}), RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message(error) == f"{path} could not be written: File too large"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    class Interrupting:
        def __reduce__(self) -> str:
            raise KeyboardInterrupt

    path = tmp_path / "net.pth"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, Checkpoint(path, {"state_dict": {"a": torch.ones(1)}, "more": Interrupting()}), RECORD)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    places = {
        tmp_path / "folder.pth": "is a directory",
        tmp_path / "nowhere" / "net.pth": "no such directory",
        tmp_path / "net.onnx": r"one of .*\.pth",
        Path("/sys/net.pth"): "could not be written",
    }
    for path, expected in places.items():
        with pytest.raises(AliasfixError, match=expected) as error:
            write_checkpoint(path, Checkpoint(path, {"state_dict": net().state_dict()}), RECORD)
        assert str(path.parent) in message(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_closed_directories(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(AliasfixError, match="no permission"):
            check_file(tmp_path / "net.pth")
    finally:
        tmp_path.chmod(0o700)


def test_modes_and_links_stay(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path, {"state_dict": net().state_dict()})
    before = os.umask(0o027)
    try:
        write_checkpoint(tmp_path / "new.pth", file, RECORD)
    finally:
        os.umask(before)
    assert (tmp_path / "new.pth").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new.pth").chmod(0o600)
    (tmp_path / "link.pth").symlink_to("new.pth")
    (tmp_path / "new.pth").write_text("old")
    write_checkpoint(tmp_path / "link.pth", file, RECORD)
    assert (tmp_path / "link.pth").is_symlink()
    assert (tmp_path / "new.pth").stat().st_mode & 0o777 == 0o600
    assert loads(tmp_path / "new.pth")


def test_tied_weights_are_written_for_each_key(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    state = {**tied.state_dict(), "view": tied[0].weight.detach().t()}
    write_checkpoint(path, Checkpoint(path, {"state_dict": state}), RECORD)
    assert same(safetensors.torch.load_file(path), dict(state))


def test_safetensors_has_no_room_for_other_things(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    file = Checkpoint(path, {"state_dict": {"a": torch.ones(1), "a._extra_state": {"b": 1}}})
    with pytest.raises(AliasfixError, match="_extra_state is no tensor"):
        write_checkpoint(path, file, RECORD)
    assert os.listdir(tmp_path) == []
