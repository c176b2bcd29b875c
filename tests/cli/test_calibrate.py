"""``aliasfix convert --calibrate``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import Result

import aliasfix

Run = Callable[..., Result]
Fails = Callable[..., str]
NET = "tiny_nets:make_net"


@pytest.fixture
def photos(home: Path) -> Path:
    """Twelve pictures of noise that is smooth enough to survive a blur."""
    (home / "photos").mkdir()
    random = torch.Generator().manual_seed(0)
    for number in range(12):
        pixels = (255 * torch.rand(90, 90, 3, generator=random)).byte().numpy()
        Image.fromarray(pixels).resize((270, 256), Image.Resampling.BICUBIC).save(home / "photos" / f"{number}.png")
    return home / "photos"


@pytest.fixture
def net(home: Path) -> nn.Module:
    import tiny_nets

    torch.manual_seed(0)
    net: nn.Module = tiny_nets.make_net()
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, home / "net.pth")
    return net.eval()


ARGUMENTS = ("--checkpoint", "net.pth", "--filter", "bin5", "--calibrate", "photos")


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors"])
def test_the_file_has_the_calibrated_weights_and_says_so(
    run: Run, home: Path, photos: Path, net: nn.Module, output: str
) -> None:
    result = run("convert", NET, *ARGUMENTS, "-o", output)
    assert result.exit_code == 0, result.stderr
    loaded = aliasfix.load(output, fresh())
    calibration = aliasfix.report(loaded).calibration
    assert f"calibrated by {calibration['method']} on 9 images, judged by 3 others" in " ".join(result.stdout.split())
    assert "A raw conversion" not in result.stdout
    assert "without epoch" in result.stderr
    changed = {key for key, value in loaded.state_dict().items() if not torch.equal(value, net.state_dict()[key])}
    assert changed
    assert f"Calibrated by {calibration['method']} on 9 images." in run("inspect", output).stdout
    again = run("convert", NET, "--checkpoint", output, "--filter", "bin5", "-o", "again.pth")
    assert again.exit_code == 0, again.stderr
    assert aliasfix.report(aliasfix.load("again.pth", fresh())).calibration == calibration


def fresh() -> nn.Module:
    import tiny_nets

    net: nn.Module = tiny_nets.make_net().eval()
    return net


def test_json_has_the_figures(run: Run, home: Path, photos: Path, net: nn.Module) -> None:
    found = json.loads(run("convert", NET, *ARGUMENTS, "-o", "out.pth", "--json").stdout)["calibration"]
    assert found["images"] == 9
    assert set(found["scores"]) == {"original", "before", "statistics", "least-squares", "both", "every-layer"}


def test_revert_of_a_calibrated_file_is_refused(
    run: Run, fails: Fails, home: Path, photos: Path, net: nn.Module
) -> None:
    run("convert", NET, *ARGUMENTS, "-o", "out.pth")
    assert "out.pth was calibrated, which changed its weights" in fails("revert", "out.pth", "-o", "plain.pth")


def test_mistakes_write_nothing(fails: Fails, home: Path, net: nn.Module) -> None:
    (home / "photos").mkdir()
    assert "no image in photos" in fails("convert", NET, *ARGUMENTS, "-o", "out.pth")
    Image.new("RGB", (40, 40)).save(home / "photos" / "one.png")
    assert "1 images are too few" in fails("convert", NET, *ARGUMENTS, "-o", "out.pth")
    assert "exclude each other" in fails("convert", NET, *ARGUMENTS, "--stream", "-o", "out.pth", code=2)
    assert "nowhere is not a folder" in fails("convert", NET, *ARGUMENTS[:-1], "nowhere", "-o", "out.pth")


def test_images_are_prepared_as_the_options_say_and_the_file_keeps_it(run: Run, photos: Path, net: nn.Module) -> None:
    options = ("--size", 32, "--mean", "0.5,0.4,0.3", "--std", "0.25", "--interpolation", "bicubic")
    result = run("convert", NET, *ARGUMENTS, *options, "-o", "out.pth")
    prepared = "32x32, bicubic, mean 0.5 0.4 0.3, std 0.25"
    assert f"aliasfix: images: 12 in photos, {prepared}, as given\n" in result.stderr
    assert "Images: size 32, mean 0.5 0.4 0.3, std 0.25, interpolation bicubic" in run("inspect", "out.pth").stdout
    result = run("compare", NET, "out.pth", "--checkpoint", "net.pth", "--images", "photos", "--passes", 1)
    assert f"aliasfix: images: 12 in photos, {prepared}, from out.pth\n" in result.stderr
    assert run("convert", NET, *ARGUMENTS, *options, "-o", "quiet.pth", "--quiet").stderr.count("images:") == 0


def test_options_of_images_that_make_no_sense(fails: Fails, photos: Path, net: nn.Module) -> None:
    for options, told in (
        (("--mean", "a,b"), "--mean a,b: write it as numbers with commas, such as 0.485,0.456,0.406"),
        (("--resize", 48, "--crop-pct", 0.9), "resize= and crop_pct= say the same"),
        (("--interpolation", "cubic"), "choose one of nearest, bilinear"),
    ):
        assert told in fails("convert", NET, *ARGUMENTS, *options, "-o", "out.pth", code=2)
    (photos / "broken.png").touch()
    told = fails("convert", NET, *ARGUMENTS, "--unreadable", "refuse", "-o", "out.pth")
    assert "1 of 13 images in photos cannot be read: broken.png; mend or remove them, or skip them" in told
