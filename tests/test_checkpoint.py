"""Checkpoints: what trainers write is read, and what is damaged or holds code is refused."""

import argparse
import contextlib
import os
import pickle
import struct
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import timm.utils
import torch
from torch import nn

from aliasfix import AliasfixError
from aliasfix.files.checkpoint import read_checkpoint
from aliasfix.files.loading import load_weights
from aliasfix.files.saving import write_checkpoint

from .checkpoints import RECORD, loads, message, net, same


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """What timm's own saver writes, after a step of training and with averaged weights."""
    model, averaged = net(seed=1), net(seed=2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(
        model="tiny", num_classes=3, in_chans=None, input_size=[3, 3, 3], gp="max", bn_eps=1e-4, bn_momentum=None,
        model_kwargs={"depth": 2}, lr=0.1, smoothing=None,
    )  # fmt: skip
    ema = timm.utils.ModelEmaV3(averaged)
    saver = timm.utils.CheckpointSaver(
        model, optimizer, args=args, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path)
    )
    saver.save_checkpoint(3, metric=0.5)
    return tmp_path / "last.pth.tar"


def test_averaged_weights_come_first(trained: Path) -> None:
    assert read_checkpoint(trained).entry == "state_dict_ema"
    assert loads(trained, seed=2)


def test_everything_the_trainer_saved_is_kept(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth.tar"
    write_checkpoint(out, read_checkpoint(trained), RECORD)
    before, after = read_checkpoint(trained).content, dict(read_checkpoint(out).content)
    assert after.pop("aliasfix") == RECORD
    assert same(dict(before), after)
    model = net(seed=1)
    torch.optim.AdamW(model.parameters()).load_state_dict(after["optimizer"])


def test_factory_arguments_of_timms_trainer(trained: Path) -> None:
    expected = {"num_classes": 3, "in_chans": 3, "global_pool": "max", "bn_eps": 1e-4, "depth": 2}
    assert read_checkpoint(trained).factory_args() == expected
    assert read_checkpoint(trained).model_name == "tiny"


@pytest.mark.parametrize(
    "args",
    [None, 5, {"input_size": 5, "model_kwargs": "depth"}, {"input_size": [], "model": 3}, argparse.Namespace()],
)
def test_arguments_of_another_kind_are_passed_over(tmp_path: Path, args: object) -> None:
    path = tmp_path / "net.pth"
    torch.save({"state_dict": net().state_dict(), "args": args}, path)
    assert read_checkpoint(path).factory_args() == {}
    assert read_checkpoint(path).model_name is None


WRAPPED = {
    "bare": lambda model: model.state_dict(),
    "model": lambda model: {"model": model.state_dict(), "epoch": 1},
    "state_dict": lambda model: {"state_dict": model.state_dict()},
    "no average yet": lambda model: {"model": model.state_dict(), "model_ema": None},
    "data parallel": lambda model: nn.DataParallel(model).state_dict(),
    "compiled": lambda model: {"state_dict": torch.compile(model).state_dict()},
    "compiled data parallel": lambda model: torch.compile(nn.DataParallel(model)).state_dict(),
    "data parallel compiled": lambda model: nn.DataParallel(torch.compile(model)).state_dict(),
    "tutorial of torch": lambda model: {
        "epoch": 3,
        "loss": torch.tensor(0.1),
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": torch.optim.SGD(model.parameters(), momentum=0.9).state_dict(),
    },
    "deepspeed": lambda model: {"module": model.state_dict(), "buffer_names": ["1.running_mean"], "dp_world_size": 2},
    "averaged": lambda model: {
        "model": net(seed=5).state_dict(),
        "model_ema": torch.optim.swa_utils.AveragedModel(model).state_dict(),
    },
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_wrapped_weights(tmp_path: Path, wrapping: str) -> None:
    path, out = tmp_path / "net.pth", tmp_path / "out.pth"
    torch.save(WRAPPED[wrapping](net()), path)
    assert loads(path)
    write_checkpoint(out, read_checkpoint(path), RECORD)
    assert loads(out)
    assert list(read_checkpoint(out).state) == list(read_checkpoint(path).state)


def test_bare_weights_with_a_nest_of_tensors_among_them(tmp_path: Path) -> None:
    state = {**net().state_dict(), "1._extra_state": {"scale": torch.ones(1)}}
    torch.save(state, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth").content, {"state_dict": state})


class Code:
    """What runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


SAVERS = {
    "zip": lambda content, path: torch.save(content, path),
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
    "old pickle": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_code_is_refused_and_not_run(tmp_path: Path, saver: str) -> None:
    path, marker = tmp_path / "net.pth", tmp_path / "ran"
    content = {"state_dict": dict(net().state_dict()) if "pickle" not in saver else {}, "more": Code(marker)}
    SAVERS[saver](content, path)
    with pytest.raises(AliasfixError) as error:
        read_checkpoint(path)
    text = message(error)
    assert str(path) in text
    assert "--trust-pickle" in text
    assert ("posix.mkdir" in text) == (saver != "pickle")
    assert not marker.exists()
    with contextlib.suppress(AliasfixError):
        read_checkpoint(path, trust=True)
    assert marker.exists()


def test_a_pickled_module_gives_its_weights_to_those_who_trust_it(tmp_path: Path) -> None:
    for name, content in {"whole.pth": net(), "entry.pth": {"model": net(), "epoch": 3}}.items():
        path = tmp_path / name
        torch.save(content, path)
        with pytest.raises(AliasfixError, match="Sequential"):
            read_checkpoint(path)
        model = net(seed=9)
        load_weights(model, read_checkpoint(path, trust=True))
        assert same(dict(model.state_dict()), dict(net().state_dict()))


def test_a_scripted_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions of torch warn of scripting
        torch.jit.script(net()).save(path)
    with pytest.raises(AliasfixError, match="refused"):
        read_checkpoint(path)


def good(path: Path, legacy: bool = False) -> bytes:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(net().state_dict()), path)
    else:
        torch.save(net().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    return path.read_bytes()


DAMAGE = {
    "empty": lambda data: b"",
    "a byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-20],
    "text": lambda data: b"<html>404</html>",
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / ("net.safetensors" if kind == "safetensors" else "net.pth")
    path.write_bytes(DAMAGE[damage](good(path, legacy=kind == "legacy")))
    with pytest.raises(AliasfixError) as error:
        read_checkpoint(path)
    assert str(path) in message(error)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    data = bytearray(good(path))
    weights = net().state_dict()["3.weight"].numpy().tobytes()
    data[data.index(weights) + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(AliasfixError, match="checksum of net/data/"):
        read_checkpoint(path)


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        good(tmp_path / "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert loads(tmp_path / "net.pth")


OTHER = {
    "both.pth": (
        {"params": net().state_dict(), "params_ema": net().state_dict()},
        "holds weights in params, params_ema: give a file with one of them",
    ),
    "two.pth": ({0: net().state_dict(), 1: net().state_dict()}, "its entries: 0, 1"),
    "list.pth": ([1, 2], "holds no weights but a list"),
    "settings.pth": ({"epoch": 3, "model": {"lr": 0.1}}, "its entries: epoch, model"),
    "nothing.pth": ({}, "its entries: none"),
    "numbered.pth": ({1: torch.ones(1)}, "its entries: 1"),
    "number.pth": ({"model": net().state_dict(), "aliasfix": 3}, "not what aliasfix writes"),
    "record.pth": ({"model": net().state_dict(), "aliasfix": {"recipe": 3}}, "not what aliasfix writes"),
}


@pytest.mark.parametrize("name", OTHER)
def test_files_that_hold_something_else(tmp_path: Path, name: str) -> None:
    content, expected = OTHER[name]
    torch.save(content, tmp_path / name)
    with pytest.raises(AliasfixError) as error:
        _ = read_checkpoint(tmp_path / name).record
    assert expected in message(error)


def test_metadata_that_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(dict(net().state_dict()), path, {"aliasfix": "{"})
    with pytest.raises(AliasfixError, match="no JSON"):
        read_checkpoint(path)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(AliasfixError, match="damaged"):
        read_checkpoint(path)


def test_no_such_file_and_directories(tmp_path: Path) -> None:
    with pytest.raises(AliasfixError, match="no such file"):
        read_checkpoint(tmp_path / "net.pth")
    with pytest.raises(AliasfixError, match="is a directory"):
        read_checkpoint(tmp_path)
    with pytest.raises(AliasfixError, match="no such file"):
        read_checkpoint(tmp_path / ("n" * 5000))
