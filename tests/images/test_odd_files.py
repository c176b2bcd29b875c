"""Images as people have them: each kind as a real file, read alone and through the commands."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import aliasfix
from aliasfix.cli import app
from aliasfix.comparison import page
from aliasfix.errors import AliasfixError
from aliasfix.images.reading import UnreadableError, listed, look, read
from aliasfix.measure import ImageFolder

PHOTO = Image.fromarray(skimage.data.chelsea()).resize((60, 40))


def cmyk(path: Path) -> None:
    PHOTO.convert("CMYK").save(path, "JPEG", quality=95)


def deep(path: Path) -> None:
    Image.fromarray(257 * np.asarray(PHOTO.convert("L")).astype(np.uint16)).save(path, "PNG")


def palette(path: Path) -> None:
    image = PHOTO.quantize(64)
    image.save(path, "PNG", transparency=bytes(range(64)))  # which Pillow warns of when it is dropped


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the stored picture lies on its side
    PHOTO.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", quality=95, exif=exif)


def animated(path: Path) -> None:
    PHOTO.save(path, "GIF", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")] * 3)


def transparent(path: Path) -> None:
    image = PHOTO.copy()
    image.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    image.save(path, "PNG")


KINDS: dict[str, Callable[[Path], None]] = {
    "cmyk.jpg": cmyk,
    "deep.png": deep,
    "palette.png": palette,
    "rotated.jpeg": rotated,
    "moving.GIF": animated,
    "transparent.png": transparent,
    "ünï cödé/ein schönes  Bild 猫.png": lambda path: PHOTO.save(path, "PNG"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_the_photograph(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    KINDS[name](tmp_path / name)
    found = read(tmp_path / name)
    wanted = PHOTO.convert("L").convert("RGB") if name == "deep.png" else PHOTO
    assert found.mode == "RGB"
    assert found.size == PHOTO.size
    difference = np.abs(np.asarray(found).astype(float) - np.asarray(wanted))
    assert difference.mean() < 12
    seen = look(listed(tmp_path))
    assert seen.unreadable == ()
    assert [path.name for path in seen.animated] == (["moving.GIF"] if "moving" in name else [])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder ``my photos`` of all kinds, one file that is cut short, and a converted net."""
    folder = tmp_path / "my photos"
    for name, write in KINDS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    transparent(folder / "one more.png")
    for path in folder.rglob("ünï*/*"):
        path.rename(folder / path.name)
    (folder / "ünï cödé").rmdir()
    whole = (folder / "cmyk.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(0)
    torch.save(net().state_dict(), "net.pth")
    return tmp_path


NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )
"""


def net() -> nn.Module:
    scope: dict[str, Callable[[], nn.Module]] = {}
    exec(NET, scope)
    return scope["net"]().eval()


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


COMMANDS = {
    "convert": (
        "convert",
        "odd_nets:net",
        "--checkpoint",
        "net.pth",
        "--calibrate",
        "my photos",
        "--size",
        32,
        "-o",
        "out.pth",
    ),
    "compare": (
        *("compare", "odd_nets:net", "odd_nets:net", "--checkpoint", "net.pth", "--images", "my photos"),
        *("--input-size", "3,16,16", "--passes", 1, "--reach", 1),
    ),
    "finetune": (
        *("finetune", "odd_nets:net", "--checkpoint", "net.pth", "--images", "my photos", "-o", "a run"),
        *("--epochs", 1, "--size", 32),
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_take_all_kinds_and_name_what_they_skip(home: Path, command: str) -> None:
    result = run(*COMMANDS[command])
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "1 of 9 images in my photos cannot be read and were skipped: cut.jpg" in told
    assert "1 of 9 images in my photos have several frames, of which the first is taken: moving.GIF" in told


def test_names_that_are_no_unicode_are_written_nevertheless(tmp_path: Path) -> None:
    for name in (b"a", b"b", b"\xff\xfe"):
        PHOTO.save(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b".png"))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cut\xff.jpg")).touch()
    found = aliasfix.compare(net(), net(), tmp_path, size=16, passes=1, metrics=["probability"])
    assert "were skipped: cut\\udcff.jpg" in found.notes[0]
    assert "\\udcff\\udcfe.png" in page.write(tmp_path / "page.html", found).read_text(encoding="utf-8")


def test_one_cut_file_among_thousands_is_skipped_or_refused(tmp_path: Path) -> None:
    PHOTO.resize((6, 4)).save(tmp_path / "0000.png")
    for number in range(1, 1000):
        os.link(tmp_path / "0000.png", tmp_path / f"{number:04}.png")
    whole = (tmp_path / "0000.png").read_bytes()
    (tmp_path / "0123.png").unlink()
    (tmp_path / "0123.png").write_bytes(whole[:-30])
    with pytest.warns(UserWarning, match=r"1 of 1000 images in .* cannot be read and were skipped: 0123.png"):
        assert sum(1 for _ in ImageFolder(tmp_path, size=4, resize=4)) == 999
    strict = ImageFolder(tmp_path, size=4, resize=4, unreadable="refuse")
    for use in (list, ImageFolder.checked):
        with pytest.raises(AliasfixError, match=r"1 of 1000 images .* cannot be read: 0123.png; mend or remove them"):
            use(strict)
    with pytest.raises(AliasfixError, match="unreadable='drop': choose one of skip, refuse"):
        ImageFolder(tmp_path, unreadable="drop")
    with pytest.raises(UnreadableError, match=r"0123\.png cannot be read as an image"):
        read(tmp_path / "0123.png")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may read every directory."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_directory_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be missing from the classes, and all labels behind it wrong."""
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        PHOTO.save(tmp_path / name / "one.png")
    tmp_path.chmod(0o755)
    (tmp_path / "cats").chmod(0)
    monkeypatch.chdir(tmp_path)  # nobody may not pass the directories above
    try:
        with (
            as_nobody(),
            pytest.raises(AliasfixError, match=r"the directory ./cats cannot be read \(Permission denied\)"),
        ):
            ImageFolder(".")
    finally:
        (tmp_path / "cats").chmod(0o755)


def test_links_are_followed_once_and_hidden_files_left_out(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / ".thumbnails").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos/cats/a.png", "photos/cats/._a.png", "photos/.thumbnails/a.png", "elsewhere/b.png"):
        PHOTO.save(tmp_path / name)
    (tmp_path / "photos" / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "cats" / "back").symlink_to(tmp_path / "photos")
    files = listed(tmp_path / "photos")
    assert [str(path.relative_to(tmp_path / "photos")) for path in files] == ["cats/a.png", "dogs/b.png"]
