"""Loading: which weights fit a model, and what is said of those that do not."""

from pathlib import Path

import pytest
import torch
from torch import nn

from aliasfix.files.checkpoint import read_checkpoint
from aliasfix.files.loading import MisfitError, load_weights

from .checkpoints import loads, message, net, same


def test_a_models_own_module_is_no_prefix(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    model = nn.DataParallel(net())
    torch.save(model.state_dict(), path)
    other = nn.DataParallel(net(seed=9))
    load_weights(other, read_checkpoint(path))
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_old_batch_norms_load_and_new_ones_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    whole = nn.DataParallel(net()).state_dict()
    del whole["module.1.num_batches_tracked"]
    torch.save(dict(whole), path)  # a plain dict has no versions, as before PyTorch 0.4.1
    assert loads(path)
    torch.save(whole, path)
    with pytest.raises(MisfitError, match=r"1 missing \(1.num_batches_tracked\)"):
        load_weights(net(), read_checkpoint(path))


def test_lazy_models_take_their_shapes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(nn.Sequential(nn.Linear(4, 3)).state_dict(), path)
    lazy = nn.Sequential(nn.LazyLinear(3))
    load_weights(lazy, read_checkpoint(path))
    assert lazy[0].weight.shape == (3, 4)


def changed(state: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    renamed = {key.replace("_", "."): value for key, value in changes.items()}
    return {key: value for key, value in {**state, **renamed}.items() if value is not None}


MISFITS = {
    "missing": ({"0_weight": None}, ["1 missing (0.weight)"]),
    "unexpected": ({"a_b": torch.ones(1)}, ["1 unexpected (a.b)"]),
    "head": (
        {"3_weight": torch.ones(7, 4), "3_bias": torch.ones(7)},
        ["2 of another shape (3.weight 7x4 for 3x4, 3.bias 7 for 3)", "--arg num_classes=7"],
    ),
    "head and a key": (
        {"3_weight": torch.ones(7, 4), "3_bias": torch.ones(7), "a_b": torch.ones(1)},
        ["1 unexpected (a.b), 2 of another shape"],
    ),
    "not only the head": ({"3_weight": torch.ones(7, 4), "0_bias": torch.ones(5)}, ["2 of another shape"]),
    "no head": ({"3_weight": torch.ones(3, 5)}, ["1 of another shape (3.weight 3x5 for 3x4)"]),
    "scalar": ({"1_num_batches_tracked": torch.ones(2)}, ["1 unexpected"]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_name_the_keys(tmp_path: Path, case: str) -> None:
    path = tmp_path / "net.pth"
    changes, expected = MISFITS[case]
    torch.save(changed(net().state_dict(), **changes), path)
    with pytest.raises(MisfitError) as error:
        load_weights(net(), read_checkpoint(path), "tests:net")
    text = message(error)
    assert text.startswith(f"{path} does not fit tests:net: ")
    assert all(part in text for part in expected)
    assert ("num_classes" in text) == (case == "head")


def test_a_table_with_another_number_of_rows_is_no_head(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    model = nn.ParameterDict({"relative_position_bias_table": torch.zeros(9, 2)})
    torch.save({"relative_position_bias_table": torch.zeros(25, 2)}, path)
    with pytest.raises(MisfitError) as error:
        load_weights(model, read_checkpoint(path))
    assert "num_classes" not in message(error)
