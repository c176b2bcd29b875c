"""aliasfix.save and aliasfix.load: what a colleague gets is what was saved, and nothing else is taken for it."""

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

import aliasfix
from aliasfix.files.record import Record, _digest, _parts

from . import drawing
from .checkpoints import message
from .drawing import draw
from .nets import Net

PATHS = ["out", "out.safetensors", "out.pth"]
SIZE = (1, 3, 64, 64)
BASES: dict[str, dict[str, Any]] = {
    "timm:resnet18": {"num_classes": 7},
    "timm:mobilenetv3_small_050": {"in_chans": 1},
    "torchvision:squeezenet1_1": {"num_classes": 5},
}


images = functools.partial(drawing.images, size=(64, 64))


def build(base: str, **args: Any) -> nn.Module:
    library, _, name = base.partition(":")
    torch.manual_seed(0)
    made = timm.create_model(name, **args) if library == "timm" else torchvision.models.get_model(name, **args)
    return draw(made)


def converted(base: str = "torchvision:squeezenet1_1", filter: str = "tri3", **args: Any) -> nn.Module:
    return aliasfix.convert(build(base, **args), filter, inplace=True)


@pytest.fixture(scope="module")
def squeezed() -> nn.Module:
    return converted(num_classes=5)


def save(model: nn.Module, path: Path, **more: Any) -> Path:
    aliasfix.save(model, path, base="torchvision:squeezenet1_1", base_args={"num_classes": 5}, **more)
    return path


_IN_A_NEW_PROCESS = """
import sys, torch, aliasfix
torch.set_num_threads(1)
model = aliasfix.load(sys.argv[1])
x, expected = torch.load(sys.argv[2])
with torch.no_grad():
    assert torch.equal(model(x), expected)
assert "timm" not in sys.modules or sys.argv[3] == "timm"
"""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_the_output_is_the_same_bit_for_bit(tmp_path: Path, base: str, path: str) -> None:
    model, x = converted(base, **BASES[base]), images(channels=BASES[base].get("in_chans", 3))
    aliasfix.save(model, tmp_path / path, **({} if "timm" in base else {"base": base, "base_args": BASES[base]}))
    loaded = aliasfix.load(tmp_path / path)
    assert torch.equal(loaded(x), model(x))
    assert aliasfix.report(loaded) == aliasfix.report(model)
    assert type(loaded) is type(model)
    assert torch.equal(aliasfix.revert(loaded)(x), aliasfix.revert(model)(x))
    aliasfix.save(loaded, tmp_path / f"again{path}")  # it says itself what its base is
    assert torch.equal(aliasfix.load(tmp_path / f"again{path}")(x), model(x))


@pytest.mark.parametrize("base", ["torchvision:squeezenet1_1", pytest.param("timm:resnet18", marks=pytest.mark.slow)])
@torch.no_grad()
def test_another_process_loads_it(tmp_path: Path, base: str) -> None:
    model = converted(base, **BASES[base])
    aliasfix.save(model, tmp_path / "out", base=base, base_args=BASES[base])
    torch.save((images(), model(images())), tmp_path / "expected.pt")
    command = [sys.executable, "-c", _IN_A_NEW_PROCESS, "out", "expected.pt", base.partition(":")[0]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@torch.no_grad()
def test_the_types_of_the_weights_stay(tmp_path: Path, squeezed: nn.Module, dtype: torch.dtype) -> None:
    model = copy.deepcopy(squeezed).to(dtype)
    loaded = aliasfix.load(save(model, tmp_path / "out"))
    assert torch.equal(loaded(images().to(dtype)), model(images().to(dtype)))


@torch.no_grad()
def test_steps_are_repeated_and_not_found_anew(tmp_path: Path) -> None:
    model = aliasfix.convert(build("torchvision:squeezenet1_1"), "bin5", include=["features.5"])
    aliasfix.save(model, tmp_path / "out.pth", base="torchvision:squeezenet1_1")
    content = torch.load(tmp_path / "out.pth")
    record = Record.from_dict(content["aliasfix"])
    other = aliasfix.inspect(build("torchvision:squeezenet1_1"), "bin5", include=["features.8"])
    swapped = Record(aliasfix.Plan(record.plan.recipe, other.steps), record.base)
    torch.save({**content, "aliasfix": swapped.to_dict()}, tmp_path / "swapped.pth")
    loaded = aliasfix.load(tmp_path / "swapped.pth")
    assert [step.path for step in aliasfix.report(loaded).converted] == ["features.8"]


# -- models of one's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS[1:])
@torch.no_grad()
def test_a_model_of_ones_own_is_given(tmp_path: Path, path: str) -> None:
    model = aliasfix.convert(draw(Net()))
    aliasfix.save(model, tmp_path / path)
    with pytest.raises(aliasfix.AliasfixError, match="does not say how its model is built"):
        aliasfix.load(tmp_path / path)
    fresh = draw(Net(), seed=5)
    teacher = fresh(images())
    assert torch.equal(aliasfix.load(tmp_path / path, fresh)(images()), model(images()))
    assert aliasfix.report(fresh) is None
    assert torch.equal(fresh(images()), teacher)
    assert aliasfix.load(tmp_path / path, fresh, inplace=True) is fresh
    assert torch.equal(fresh(images()), model(images()))
    again = aliasfix.convert(draw(Net(), seed=6))  # converted in the same way already
    assert torch.equal(aliasfix.load(tmp_path / path, again)(images()), model(images()))


def test_a_directory_needs_a_base(tmp_path: Path) -> None:
    with pytest.raises(aliasfix.AliasfixError, match="give base="):
        aliasfix.save(aliasfix.convert(Net()), tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("inplace", [False, True])
@torch.no_grad()
def test_a_model_that_does_not_fit_is_left_as_it_was(tmp_path: Path, inplace: bool) -> None:
    aliasfix.save(aliasfix.convert(draw(Net())), tmp_path / "out.pth")
    wider = draw(Net(), seed=5)
    wider.fc = nn.Linear(8, 3)
    before = wider(images())
    with pytest.raises(aliasfix.AliasfixError, match="fc"):
        aliasfix.load(tmp_path / "out.pth", wider, inplace=inplace)
    assert aliasfix.report(wider) is None
    assert wider(images()).shape == before.shape
    assert inplace or torch.equal(wider(images()), before)
    with pytest.raises(aliasfix.AliasfixError, match="do not fit Sequential"):
        aliasfix.load(tmp_path / "out.pth", nn.Sequential())


def test_only_names_of_libraries_are_stored(tmp_path: Path) -> None:
    model = aliasfix.convert(draw(Net()))
    with pytest.raises(aliasfix.AliasfixError, match="imports code"):
        aliasfix.save(model, tmp_path / "out.pth", base="tests.nets:Net")
    with pytest.raises(aliasfix.AliasfixError, match="give base= too"):
        aliasfix.save(model, tmp_path / "out.pth", base_args={})
    with pytest.raises(aliasfix.AliasfixError, match="takes a converted model"):
        aliasfix.save(Net(), tmp_path / "out.pth")
    assert os.listdir(tmp_path) == []


def test_arguments_that_cannot_be_stored(tmp_path: Path, squeezed: nn.Module) -> None:
    with pytest.raises(aliasfix.AliasfixError, match="cannot be stored with the model"):
        aliasfix.save(squeezed, tmp_path / "out", base="torchvision:squeezenet1_1", base_args={"num_classes": {5}})


def _another_head(model: nn.Module) -> None:
    model.classifier[1] = nn.Conv2d(512, 9, 1)


def _another_activation(model: nn.Module) -> None:
    model.features[1] = nn.SiLU(inplace=True)


def _a_layer_more(model: nn.Module) -> None:
    model.extra = nn.Linear(2, 2)


CHANGES = {
    _another_head: "other shapes: classifier.1.weight (5, 512, 1, 1) for (9, 512, 1, 1)",
    _another_activation: "features.1 is ReLU(inplace=True) where the model has SiLU(inplace=True)",
    _a_layer_more: "it has no extra.weight, extra.bias",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
def test_a_base_that_does_not_build_the_model_is_refused(
    tmp_path: Path, squeezed: nn.Module, change: Callable[[nn.Module], None]
) -> None:
    model = copy.deepcopy(squeezed)
    change(model)
    with pytest.raises(aliasfix.AliasfixError) as error:
        save(model, tmp_path / "out.pth")
    assert CHANGES[change] in message(error)
    assert "give base= and base_args=" in message(error)
    assert os.listdir(tmp_path) == []


def test_a_head_that_timm_reset_is_saved(tmp_path: Path) -> None:
    model = converted("timm:resnet18")
    model.reset_classifier(4)
    aliasfix.save(model, tmp_path / "out")
    assert aliasfix.load(tmp_path / "out")(images()).shape == (2, 4)


# -- what is refused -----------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[dict[str, Any]], None], honest: bool = False) -> None:
    """Edit the record of a .pth file; ``honest``: as somebody who writes the digests anew."""
    content = torch.load(path)
    record = content["aliasfix"]
    change(record)
    if honest:
        record["digests"] = {name: _digest(part) for name, part in _parts(record).items()}
    torch.save(content, path)


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    'recipe.filter (now "bin5")': lambda r: r["recipe"].update(filter="bin5"),
    'steps[1].*now|steps[1]': lambda r: r["steps"][1].update(action="keep"),
    "steps[12] (now missing)": lambda r: r["steps"].pop(),
    'base (now "torchvision:squeezenet1_0")': lambda r: r.update(base="torchvision:squeezenet1_0"),
    "base_args": lambda r: r["base_args"].update(num_classes=6),
    "weights": lambda r: r.update(weights=None),
}  # fmt: skip


def test_edits_by_hand_are_named(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(squeezed, tmp_path / "out.pth")
    data = path.read_bytes()
    last = len(torch.load(path)["aliasfix"]["steps"]) - 1
    for expected, change in EDITS.items():
        path.write_bytes(data)
        edit(path, change)
        with pytest.raises(aliasfix.AliasfixError, match="edited by hand") as error:
            aliasfix.load(path)
        assert expected.partition(".*")[0].replace("12", str(last)) in message(error)


HONEST: dict[str, Callable[[dict[str, Any]], Any]] = {
    "written in format 2 by aliasfix 0.1.0; this version reads format 1": lambda r: r.update(format=2),
    "'tests.nets:Net' names code to import, which is refused": lambda r: r.update(base="tests.nets:Net"),
    "'timm:hf-hub:a/b' is no name": lambda r: r.update(base="timm:hf-hub:a/b"),
    "name weights to fetch, which is refused: weights": lambda r: r["base_args"].update(weights="DEFAULT"),
    "base_args name weights to fetch, which is refused: check": lambda r: r["base_args"].update(checkpoint_path="x"),
    "unknown filter 'tri4'": lambda r: r["recipe"].update(filter="tri4"),
    "the rule 'evil'": lambda r: r["steps"][0].update(rule="evil"),
    "the most is 64": lambda r: r["steps"][1]["edits"][-1]["blur"].update(rate=[10**9, 10**9]),
    "not hold the weights of its base": lambda r: r["base_args"].update(num_classes=10**8),
    "do not fit SqueezeNet": lambda r: [e.update(path="nowhere") for s in r["steps"] for e in s["edits"]],
    "its base_args are no arguments": lambda r: r.update(base_args=3),
    "fingerprint asks for an input of": lambda r: r["fingerprint"]["inputs"]["0"].update(shape=[1, 3, 10**6, 10**6]),
    "fingerprint is damaged": lambda r: r.update(fingerprint={}),
    "of another type": lambda r: r.update(fingerprint=[1]),
    "fingerprint is damaged: ValueError: no type": lambda r: r["fingerprint"]["inputs"]["0"].update(dtype="load"),
    "does not run on the input of its": lambda r: r["fingerprint"]["inputs"]["0"].update(dtype="quint8"),
    "fingerprint is damaged: 3 values, not 5": lambda r: r["fingerprint"].update(values=[1, 2, 3]),
    "steps, lattice or notes are of another type": lambda r: r["steps"][1].update(call="[red]"),
    "is no plan of aliasfix: KeyError": lambda r: r["steps"][0].pop("edits"),
    "is not what aliasfix writes": lambda r: r.pop("format"),
}


@pytest.mark.parametrize("expected", HONEST)
def test_a_record_of_an_attacker_is_refused(tmp_path: Path, squeezed: nn.Module, expected: str) -> None:
    path = save(squeezed, tmp_path / "out.pth")
    edit(path, HONEST[expected], honest=True)
    with pytest.raises(aliasfix.AliasfixError) as error:
        aliasfix.load(path)
    assert expected in message(error)


def test_another_recipe_is_refused(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(squeezed, tmp_path / "out")
    aliasfix.load(path, recipe=aliasfix.Recipe("tri3"))
    with pytest.raises(aliasfix.AliasfixError, match="filter 'tri3', not 'bin5'; stem 'paper', not 'full'"):
        aliasfix.load(path, recipe=aliasfix.Recipe("bin5", stem="full"))
    with pytest.raises(aliasfix.AliasfixError, match="converted differently: filter 'tri3', not 'rect2'"):
        aliasfix.load(path, converted(filter="rect2", num_classes=5))


def test_other_weights_are_found(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(squeezed, tmp_path / "out.pth")
    content = torch.load(path)
    content["state_dict"]["features.0.bias"][0] += 1
    torch.save(content, path)
    with pytest.raises(aliasfix.AliasfixError, match="its weights are not those"):
        aliasfix.load(path)


def test_another_output_is_a_warning(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(squeezed, tmp_path / "out.pth")
    edit(path, lambda r: r["fingerprint"].update(scale=r["fingerprint"]["scale"] * 0.9), honest=True)
    aliasfix.load(path)
    edit(path, lambda r: r["fingerprint"]["values"].__setitem__(0, 1e3), honest=True)
    with pytest.warns(UserWarning, match="its output differs by"):
        aliasfix.load(path)


def test_weights_without_a_record(tmp_path: Path, squeezed: nn.Module) -> None:
    torch.save(squeezed.state_dict(), tmp_path / "ours.pth")
    torch.save(build("torchvision:squeezenet1_1").state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(aliasfix.AliasfixError, match=r"it names features\.2\.aliasfix_blur"):
        aliasfix.load(tmp_path / "ours.pth")
    with pytest.raises(aliasfix.AliasfixError, match="was not converted by aliasfix"):
        aliasfix.load(tmp_path / "theirs.pth")


# -- directories ---------------------------------------------------------------------------------------------


def test_links_in_a_directory_are_refused(tmp_path: Path, squeezed: nn.Module) -> None:
    for name in ("config.json", "model.safetensors"):
        path = save(squeezed, tmp_path / name.partition(".")[0])
        (path / name).rename(tmp_path / "elsewhere")
        (path / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(aliasfix.AliasfixError, match=f"{name} is a link"):
            aliasfix.load(path)
        before = (tmp_path / "elsewhere").read_bytes()
        with pytest.raises(aliasfix.AliasfixError, match=f"{name} is a link"):
            save(squeezed, path)
        assert (tmp_path / "elsewhere").read_bytes() == before


def test_damaged_directories(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(squeezed, tmp_path / "out")
    config = (path / "config.json").read_text()
    for text, expected in {"": "is no JSON", "[" * 10**5: "is no JSON", "[]": "no JSON object"}.items():
        (path / "config.json").write_text(text)
        with pytest.raises(aliasfix.AliasfixError, match=expected):
            aliasfix.load(path)
    (path / "config.json").write_text(json.dumps({**json.loads(config), "architecture": "resnet18"}))
    with pytest.raises(aliasfix.AliasfixError, match=r"but config\.json an architecture 'resnet18'"):
        aliasfix.load(path)
    (path / "config.json").write_text(config)
    save(converted(filter="bin5", num_classes=5), tmp_path / "other.safetensors")
    os.replace(tmp_path / "other.safetensors", path / "model.safetensors")
    with pytest.raises(aliasfix.AliasfixError, match="of two conversions: filter 'tri3', not 'bin5'"):
        aliasfix.load(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(aliasfix.AliasfixError, match=r"it has no model\.safetensors"):
        aliasfix.load(path)


def test_a_directory_is_written_over(tmp_path: Path, squeezed: nn.Module) -> None:
    path = save(converted(filter="bin5", num_classes=5), tmp_path / "out")
    (path / "notes.txt").write_text("mine")
    save(squeezed, path)
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors", "notes.txt"]
    assert aliasfix.report(aliasfix.load(path)).recipe.filter == "tri3"
    assert os.listdir(tmp_path) == ["out"]


def test_weights_that_timm_wrote_anew_are_taken(tmp_path: Path, squeezed: nn.Module) -> None:
    """Of a directory whose weights went on training there is no hash."""
    path = save(squeezed, tmp_path / "out")
    state = {key: value + 1 for key, value in squeezed.state_dict().items()}
    safetensors.torch.save_file(state, path / "model.safetensors")
    loaded = aliasfix.load(path)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
