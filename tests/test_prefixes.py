"""What wrappers and trainers put around keys is taken off where the rest fits a model, and named where it does not."""

import contextlib
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import aliasfix
from aliasfix import AliasfixError
from aliasfix.files.checkpoint import Checkpoint, read_checkpoint
from aliasfix.files.loading import MisfitError, load_weights
from aliasfix.files.prefixes import match

from .checkpoints import message, net, same

LIGHTNING = Path(__file__).parent / "data" / "lightning.ckpt"
State = dict[str, Tensor]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def file(*states: State) -> Checkpoint:
    return Checkpoint(
        Path("net.ckpt"), {"state_dict": {key: value for state in states for key, value in state.items()}}
    )


WEIGHTS = dict(net().state_dict())
OTHER = dict(net(seed=1).state_dict())
LOSS = {"criterion.weight": torch.ones(3)}
ALL = "its keys are read without their prefix "
FITS: dict[str, tuple[list[State], str]] = {
    "lightning": ([prefixed("model.", WEIGHTS)], f"{ALL}'model.'"),
    "another name": ([prefixed("backbone.", WEIGHTS)], f"{ALL}'backbone.'"),
    "a module in a module": ([prefixed("model.net.", WEIGHTS)], f"{ALL}'model.net.'"),
    "data parallel in lightning": ([prefixed("model.module.", WEIGHTS)], f"{ALL}'model.module.'"),
    "ema": ([prefixed("ema.", WEIGHTS)], f"{ALL}'ema.'"),
    "a loss beside": ([LOSS, prefixed("model.", WEIGHTS)], f"{ALL}'model.'; criterion.weight beside it is not read"),
    "another network beside": (
        [prefixed("generator.", WEIGHTS), {"discriminator.0.weight": torch.ones(1)}],
        f"{ALL}'generator.'; discriminator.0.weight beside it is not read",
    ),
    "compiled in lightning": ([prefixed("model._orig_mod.", WEIGHTS)], f"{ALL}'model.'"),
    "lightning and deepspeed": ([prefixed("_forward_module.model.", WEIGHTS)], f"{ALL}'model.'"),
    "deepspeed": ([prefixed("module.", WEIGHTS)], ""),
    "fsdp": ([prefixed("_fsdp_wrapped_module.", WEIGHTS)], ""),
    "fsdp of layers": ([{key.replace(".", "._fsdp_wrapped_module._checkpoint_wrapped_module.", 1): value
                         for key, value in WEIGHTS.items()}], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_a_prefix_is_taken_off_and_said(case: str) -> None:
    states, remark = FITS[case]
    model = net(seed=9)
    assert load_weights(model, file(*states)) == remark
    assert same(dict(model.state_dict()), WEIGHTS)


def test_layers_that_were_compiled() -> None:
    model = net()
    model[0], model[3] = torch.compile(model[0]), torch.compile(model[3])
    state = model.state_dict()
    assert "0._orig_mod.weight" in state
    plain = net(seed=9)
    assert load_weights(plain, file(state)) == ""
    assert same(dict(plain.state_dict()), WEIGHTS)
    other = net(seed=9)
    other[0], other[3] = torch.compile(other[0]), torch.compile(other[3])
    assert load_weights(other, file(prefixed("model.", state))) == f"{ALL}'model.'"
    assert same(dict(other.state_dict()), dict(state))


def test_an_average_in_a_module() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ema = AveragedModel(net())

    model = net(seed=9)
    remark = load_weights(model, file(Module().state_dict()))
    assert remark == f"{ALL}'ema.module.'; ema.n_averaged beside it is not read"
    assert same(dict(model.state_dict()), WEIGHTS)


def test_old_layouts_are_read_by_their_versions_under_a_prefix() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = net()

    state = Module().state_dict()
    found = match(Checkpoint(Path("net.ckpt"), {"state_dict": state}), net().state_dict()).state
    assert found._metadata == net().state_dict()._metadata
    del state["model.1.num_batches_tracked"]
    with pytest.raises(
        MisfitError, match=r"1 missing \(1\.num_batches_tracked\); its keys are read without .*'model\.'$"
    ):
        load_weights(net(), file(state) if False else Checkpoint(Path("net.ckpt"), {"state_dict": state}))
    del state._metadata  # before PyTorch 0.4.1
    assert load_weights(net(seed=9), Checkpoint(Path("net.ckpt"), {"state_dict": state})) == f"{ALL}'model.'"


HEAD = {**WEIGHTS, "3.weight": torch.ones(7, 4), "3.bias": torch.ones(7)}
MISFITS: dict[str, tuple[list[State], list[str]]] = {
    "another model": (
        [prefixed("model.", {"conv.weight": torch.ones(1), "fc.bias": torch.ones(1)})],
        ["8 missing (0.weight, ", "2 unexpected (model.conv.weight, ", "; all of its keys begin with 'model.'"],
    ),
    "another head": (
        [prefixed("model.", HEAD)],
        ["keys 2 of another shape (3.weight 7x4", "--arg num_classes=7", f"{ALL}'model.'"],
    ),
    "another head, and a loss": (
        [prefixed("model.", HEAD), LOSS],
        ["--arg num_classes=7", f"{ALL}'model.'; criterion.weight beside it is not read"],
    ),
    "no head": (
        [prefixed("model.", {key: value for key, value in WEIGHTS.items() if not key.startswith("3")})],
        ["keys 2 missing (3.weight, 3.bias)", f"{ALL}'model.'"],
    ),
    "no head, and a loss": (
        [prefixed("model.", {key: value for key, value in WEIGHTS.items() if not key.startswith("3")}), LOSS],
        ["8 missing", "8 unexpected", "7 keys of the model begin with 'model.' in it, others do not"],
    ),
    "two models": (
        [prefixed("model.", WEIGHTS), prefixed("ema.module.", OTHER)],
        ["net.ckpt has all keys of the model under 'model.' and 'ema.module.': give a file with one of them"],
    ),
    "bare, and an average": (
        [WEIGHTS, prefixed("ema.", OTHER)],
        ["net.ckpt has all keys of the model under no prefix and 'ema.': give a file with one of them"],
    ),
    "data parallel": ([prefixed("module.", HEAD)], ["--arg num_classes=7"]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_names_the_prefix(case: str) -> None:
    states, expected = MISFITS[case]
    with pytest.raises(AliasfixError) as error:
        load_weights(net(), file(*states))
    text = message(error)
    assert all(part in text for part in expected)
    assert ("'" in text) == (case != "data parallel")


# -- files ---------------------------------------------------------------------------------------------------

NET = {"base": "torchvision:squeezenet1_1", "base_args": {"num_classes": 3}}


@pytest.fixture(scope="module")
def squeezed() -> State:
    torch.manual_seed(0)
    return dict(torchvision.models.squeezenet1_1(num_classes=3).state_dict())


@pytest.mark.parametrize(("prefix", "says"), [("model.", True), ("module.", False)])
def test_a_file_keeps_its_keys_and_a_directory_has_the_models(
    tmp_path: Path, squeezed: State, prefix: str, says: bool
) -> None:
    """timm, which opens the directory, knows of no prefix."""
    import timm

    state = prefixed(prefix, squeezed)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.ckpt")
    said = pytest.warns(UserWarning, match=f"net.ckpt: {ALL}'model.'$") if says else contextlib.nullcontext()
    for name in ("out.ckpt", "out"):
        with said:
            aliasfix.convert_file(tmp_path / "net.ckpt", tmp_path / name, **NET)
    assert list(read_checkpoint(tmp_path / "out.ckpt").state) == list(state)
    assert list(read_checkpoint(tmp_path / "out" / "model.safetensors").state) == sorted(squeezed)
    for model in (aliasfix.load(tmp_path / "out.ckpt"), aliasfix.load(tmp_path / "out"),
                  timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)):  # fmt: skip
        assert same(dict(model.state_dict()), squeezed)


def test_a_converted_model_in_a_trainers_checkpoint_is_told_by_its_blurs(tmp_path: Path, squeezed: State) -> None:
    class Module(nn.Module):
        def __init__(self, stem: str) -> None:
            super().__init__()
            self.model = aliasfix.convert(torchvision.models.squeezenet1_1(num_classes=3), stem=stem)

    for stem in ("paper", "full"):
        torch.save({"state_dict": Module(stem).state_dict()}, tmp_path / f"{stem}.ckpt")
    with pytest.warns(UserWarning, match="'model.'"):
        aliasfix.convert_file(tmp_path / "paper.ckpt", tmp_path / "out.ckpt", **NET)
    with (
        pytest.warns(UserWarning, match="'model.'"),
        pytest.raises(AliasfixError, match="converted at 4 places, and not"),
    ):
        aliasfix.convert_file(tmp_path / "full.ckpt", tmp_path / "no.ckpt", **NET)
    assert not (tmp_path / "no.ckpt").exists()
