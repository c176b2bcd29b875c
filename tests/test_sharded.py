"""Checkpoints in several files, as Hugging Face's own writers lay them out."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
import torchvision

import aliasfix
from aliasfix import AliasfixError
from aliasfix.files import batch, streaming
from aliasfix.files.checkpoint import read_checkpoint
from aliasfix.files.directory import read_directory

from .checkpoints import message, same

NET = {"base": "torchvision:squeezenet1_1", "base_args": {"num_classes": 3}}
INDICES = ["model.safetensors.index.json", "pytorch_model.bin.index.json"]
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(torchvision.models.squeezenet1_1(num_classes=3).state_dict())


def shard(folder: Path, state: State, index: str) -> Path:
    """Write weights into several files; the index."""
    folder.mkdir(parents=True)
    safe = index.startswith("model")
    huggingface_hub.save_torch_state_dict(state, folder, max_shard_size="1MB", safe_serialization=safe)
    assert len(list(folder.iterdir())) == 5
    return folder / index


@pytest.fixture
def index(tmp_path: Path, state: State) -> Path:
    return shard(tmp_path / "in", state, INDICES[0])


@pytest.mark.parametrize(
    ("name", "given", "out"),
    [
        (INDICES[0], "index", "out.safetensors"),
        (INDICES[0], "directory", "out"),
        (INDICES[1], "index", "out"),
        (INDICES[1], "directory", "out.pth"),
    ],
)
def test_shards_become_one_file_or_a_directory(tmp_path: Path, state: State, name: str, given: str, out: str) -> None:
    path = shard(tmp_path / "in", state, name)
    done = aliasfix.convert_file(path if given == "index" else path.parent, tmp_path / out, **NET)
    assert len(done.plan.converted) == 3
    model = aliasfix.load(tmp_path / out)
    assert same(dict(model.state_dict()), state)
    assert sorted(os.listdir(tmp_path)) == sorted(["in", out])


def test_a_directory_with_a_configuration_says_what_builds_its_model(tmp_path: Path, state: State) -> None:
    path = shard(tmp_path / "in", state, INDICES[0])
    (path.parent / "config.json").write_text(json.dumps({"architecture": "squeezenet"}))
    assert same(read_directory(path.parent).state, state)
    (path.parent / "config.json").unlink()
    with pytest.raises(AliasfixError, match=r"in has no config\.json: name what builds the model"):
        aliasfix.convert_file(path.parent, tmp_path / "out")


def test_whole_weights_come_before_shards(index: Path) -> None:
    folder = index.parent
    (folder / "config.json").write_text("{}")
    safetensors.torch.save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    assert list(read_directory(folder).state) == ["a"]


def test_shards_are_streamed_into_one_file(tmp_path: Path, index: Path, state: State) -> None:
    aliasfix.convert_file(index, tmp_path / "out.safetensors", **NET, stream=True)
    assert same(safetensors.torch.load_file(tmp_path / "out.safetensors"), state)
    assert aliasfix.report(aliasfix.load(tmp_path / "out.safetensors")).converted  # the hash of the weights is right


def test_large_shards_are_streamed_by_themselves(index: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(file.stat().st_size for file in index.parent.glob("*.safetensors"))
    for memory, large in ((2 * size - 2, True), (2 * size, False)):
        monkeypatch.setattr(os, "sysconf", lambda name, memory=memory: memory if name == "SC_PAGE_SIZE" else 1)
        assert streaming.is_large(index) == large
        assert not streaming.is_large(index.parent)
    bins = shard(index.parents[1] / "bins", state, INDICES[1])
    assert not streaming.is_large(bins)
    with pytest.raises(AliasfixError, match=r"pytorch_model-00001-of-00004\.bin cannot be streamed"):
        streaming.open_stream(bins)


def forget(index: Path, key: str) -> None:
    listed = json.loads(index.read_text())
    del listed["weight_map"][key]
    index.write_text(json.dumps(listed))


def rename(index: Path, old: str, new: object) -> None:
    listed = json.loads(index.read_text())
    names = {key: new if name == old else name for key, name in listed["weight_map"].items()}
    index.write_text(json.dumps({**listed, "weight_map": names}))


SHARD = "model-00002-of-00004.safetensors"
DAMAGE: dict[str, Callable[[Path], object]] = {
    f"{SHARD} is missing: model.safetensors.index.json names it": lambda i: (i.parent / SHARD).unlink(),
    f"{SHARD} is damaged, or no safetensors file": lambda i: os.truncate(i.parent / SHARD, 1000),
    "the name '../other.safetensors' leads out of the directory": lambda i: rename(i, SHARD, "../other.safetensors"),
    "the name '/etc/passwd' leads out of the directory": lambda i: rename(i, SHARD, "/etc/passwd"),
    "names another index: model.safetensors.index.json": lambda i: rename(i, SHARD, i.name),
    "model-00001-of-00004.safetensors lacks ": lambda i: rename(i, SHARD, "model-00001-of-00004.safetensors"),
    "holds features.0.bias, which model.safetensors.index.json does not": lambda i: forget(i, "features.0.bias"),
    "3 is missing: model.safetensors.index.json names it": lambda i: rename(i, SHARD, 3),
    "is no index: it has no weight_map": lambda i: i.write_text("{}"),
    "holds no JSON object": lambda i: i.write_text("[]"),
    "index.json is no JSON": lambda i: i.write_text(i.read_text()[:99]),
}  # fmt: skip


@pytest.mark.parametrize("expected", DAMAGE)
@pytest.mark.parametrize("stream", [False, True])
def test_a_shard_that_is_missing_damaged_or_elsewhere_is_named(
    tmp_path: Path, index: Path, expected: str, stream: bool
) -> None:
    DAMAGE[expected](index)
    with pytest.raises(AliasfixError) as error:
        aliasfix.convert_file(index, tmp_path / "out.safetensors", **NET, stream=stream)
    assert expected in message(error)
    assert os.listdir(tmp_path) == ["in"]


def test_a_shard_that_is_a_link_is_named(tmp_path: Path, index: Path) -> None:
    (index.parent / SHARD).rename(tmp_path / SHARD)
    (index.parent / SHARD).symlink_to(tmp_path / SHARD)
    with pytest.raises(AliasfixError, match=f"{SHARD} is a link"):
        read_checkpoint(index)


def test_shards_are_not_written(tmp_path: Path, index: Path) -> None:
    with pytest.raises(AliasfixError, match=r"told by the suffix, one of \.pth, \.pt, \.tar, \.ckpt, \.safetensors$"):
        aliasfix.convert_file(index, tmp_path / "out.index.json", **NET)


def test_in_a_tree_an_index_is_one_checkpoint(tmp_path: Path, state: State) -> None:
    tree = tmp_path / "tree"
    shard(tree / "a", state, INDICES[0])
    path = shard(tree / "b", state, INDICES[1])
    path.rename(path.with_name("other.bin.index.json"))  # not what makes a model's directory
    for name in ("00001", "00002"):
        old = path.parent / f"pytorch_model-{name}-of-00004.bin"
        old.rename(old.with_suffix(".pt"))
        rename(path.with_name("other.bin.index.json"), old.name, old.with_suffix(".pt").name)
    found = {str(task.given.relative_to(tree)): task.output for task in batch.tasks([tree], str(tmp_path / "out"))}
    assert found == {"a": f"{tmp_path}/out/a/", "b/other.bin.index.json": f"{tmp_path}/out/b/other.pth"}


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return dict, ()


def test_a_directory_with_code_is_read_by_those_who_trust_it(tmp_path: Path, state: State) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save({"state_dict": state, "more": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(AliasfixError, match="--trust-pickle"):
        read_directory(tmp_path)
    assert same(read_directory(tmp_path, trust=True).state, state)
