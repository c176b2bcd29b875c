"""How images are prepared: who says it, what the network then sees, and that files keep it."""

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision import transforms

import aliasfix
from aliasfix import AliasfixError, Preprocessing
from aliasfix.files import opening
from aliasfix.files.checkpoint import Checkpoint
from aliasfix.files.trained import images_of, of_preprocessor, of_trainer
from aliasfix.images.known import known, prepared, remember, sensible
from aliasfix.images.views import Views
from aliasfix.measure import ImageFolder

DIGITS = Preprocessing(size=24, mean=0.25, std=0.5)
HALF = (0.5, 0.5, 0.5)


def small(channels: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
        ).eval()  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photographs in three classes, higher than wide and wider than high."""
    for number, name in enumerate(("chelsea", "coffee", "rocket") * 3):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        pixels = getattr(skimage.data, name)()[10 * number : 200 + 10 * number, :300]
        image = Image.fromarray(pixels).resize((60, 40) if number % 2 else (40, 64))
        image.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


# Who says it


def test_the_first_who_says_it_is_believed() -> None:
    net = timm.create_model("test_resnet", num_classes=3)
    of_timm = prepared(net)
    assert (of_timm.size, of_timm.resize, of_timm.mean, of_timm.interpolation) == (160, 168, HALF, "bilinear")
    assert str(of_timm).endswith("from timm's configuration of test_resnet")
    remember(net, Preprocessing(size=48, mean=0.25), "from net.pth")
    found = prepared(net, Preprocessing(std=0.125, resize=50))
    assert (found.size, found.resize, found.mean, found.std) == (48, 50, (0.25,), (0.125,))
    assert str(found) == (
        "48x48 from shorter side 50, bilinear, mean 0.25, std 0.125, std, crop as given; size, mean from net.pth; "
        "the rest from timm's configuration of test_resnet"
    )
    assert prepared(net, size=32).size == 32
    assert prepared(small(), beside=net).mean == (0.25,)
    assert str(prepared(small())).endswith("std 0.229 0.224 0.225, as for ImageNet")


@pytest.mark.parametrize(
    ("layers", "resize"),
    [
        ([{}], 256),
        ([{"size": 48}], 48),  # nobody says that anything is cropped of it
        ([{"size": 48, "crop_pct": 0.75}], 64),
        ([{"resize": 240}], 240),
        ([{"size": 112}, {"size": 224, "resize": 256}], 128),
        ([{"resize": 300}, {"size": 224, "resize": 256}], 300),
        ([{"size": 112}, {"crop_pct": 0.95}], 117),
    ],
)
def test_as_much_is_cropped_as_for_the_size_that_it_is_said_of(layers: list[dict[str, Any]], resize: int) -> None:
    net = small()
    for layer in layers[1:]:
        remember(net, Preprocessing(**layer), "from a file")
    assert prepared(net, Preprocessing(**layers[0])).resize == resize
    remember(net, Preprocessing(**layers[0]), "as given")
    assert prepared(net).resize == resize


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": 48.5}, "size=48.5: give a number of pixels"),
        ({"resize": 0}, "resize=0: give a number of pixels"),
        ({"size": 64, "resize": 48}, "a crop of 64 does not fit images resized to 48: give resize=64 or more"),
        ({"resize": 64, "crop_pct": 0.9}, "resize= and crop_pct= say the same"),
        ({"crop_pct": 87.5}, "crop_pct=87.5: give a share of the image, such as 0.875"),
        ({"mean": (123.7, 116.3, 103.5)}, "of values to 255, divide it by 255"),
        ({"mean": (0.5, 0.5)}, "give one number for each channel, or one for all"),
        ({"std": (0.5, 0, 0.5)}, "give numbers above 0"),
        ({"std": "a"}, "std='a': give one number"),
        ({"interpolation": "cubic"}, "interpolation='cubic': choose one of nearest, bilinear, bicubic"),
        ({"unreadable": "drop"}, "unreadable='drop': choose one of skip, refuse"),
        ({"size": 48, "transform": abs}, "transform= stands in the place of size: give it alone"),
    ],
)
def test_mistakes(given: dict[str, Any], told: str) -> None:
    with pytest.raises(AliasfixError, match=told):
        Preprocessing(**given)


def test_mistakes_of_the_functions(photos: Path) -> None:
    net = small()
    with pytest.raises(AliasfixError, match="size=32 and preprocessing= of size 24: give one of them"):
        aliasfix.compare(net, net, photos, size=32, preprocessing=DIGITS)
    with pytest.raises(AliasfixError, match=r"preprocessing= is an aliasfix\.Preprocessing, or a transform"):
        aliasfix.compare(net, net, photos, preprocessing={"size": 24})  # type: ignore[arg-type]
    with pytest.raises(AliasfixError, match="preprocessing= is of a folder's images, and these are no folder"):
        aliasfix.compare(net, net, torch.rand(2, 3, 24, 24), preprocessing=DIGITS)


def test_networks_of_different_images_are_noted(photos: Path) -> None:
    one, other = small(), small()
    remember(one, DIGITS, "from one.pth")
    remember(other, DIGITS, "from other.pth")
    assert not Views(photos, one, beside=other).notes
    remember(other, Preprocessing(mean=0.5), "from other.pth")
    (note,) = Views(photos, one, beside=other).notes
    assert (
        "other images than it is given here: 24x24, bilinear, mean 0.5, std 0.5, size, mean, std from other.pth" in note
    )
    assert not Views(photos, one, beside=other, preprocessing=Preprocessing(mean=0.1)).notes


# Files that say it


def checkpoint(**content: Any) -> Checkpoint:
    return Checkpoint(Path("runs/net.pth"), {"state_dict": {}, **content})


def test_trainers_say_it_in_their_arguments() -> None:
    timms = argparse.Namespace(
        img_size=None,
        input_size=[3, 48, 48],
        crop_pct=0.9,
        mean=[0.5] * 3,
        std=None,
        interpolation="",
        model="resnet18",
    )
    assert images_of(checkpoint(args=timms)) == ("from net.pth", Preprocessing(size=48, crop_pct=0.9, mean=HALF))
    reference = {"val_crop_size": 64, "val_resize_size": 72, "interpolation": "bicubic", "train_crop_size": 56}
    assert of_trainer(reference) == Preprocessing(64, 72, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
    assert images_of(checkpoint(args={"lr": 0.1, "epochs": 3})) is None
    assert of_trainer({"img_size": "large", "mean": "none", "std": [1, 2], "crop_pct": 9}) == Preprocessing()


RESNET = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_mean": HALF, "image_std": HALF, "resample": 3}
VIT = {"size": {"height": 224, "width": 224}, "do_resize": True, "image_mean": HALF, "image_std": HALF, "resample": 2}
CLIP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}
MOBILE = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True, "do_normalize": False}
WIDE = {"size": {"height": 346, "width": 346}, "crop_size": {"height": 289, "width": 289}, "do_center_crop": True}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RESNET, Preprocessing(224, None, 0.875, HALF, HALF, "bicubic")),
        (VIT, Preprocessing(224, None, None, HALF, HALF, "bilinear", squash=True)),
        (CLIP, Preprocessing(224)),
        (MOBILE, Preprocessing(224, 256, None, 0, 1)),
        (WIDE, Preprocessing(289, 346, squash=True)),
        ({"size": "unknown", "resample": "best"}, Preprocessing()),
    ],
    ids=["resnet", "vit", "clip", "mobilenet", "efficientnet", "nonsense"],
)
def test_a_preprocessor_of_hugging_face_says_it(config: dict[str, Any], expected: Preprocessing) -> None:
    assert of_preprocessor(config) == expected


def test_a_directory_says_it_beside_the_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 48, 48], "mean": HALF}}))
    found = images_of(Checkpoint(tmp_path, {"state_dict": {}}))
    assert found == (f"from {tmp_path.name}/config.json", Preprocessing(size=48, mean=HALF))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        source, images = images_of(Checkpoint(path, {"state_dict": {}})) or ("", Preprocessing())
        assert source.endswith("/preprocessor_config.json")
        assert images.squash
    assert images_of(Checkpoint(tmp_path / "other.safetensors", {"state_dict": {}})) is None
    (tmp_path / "preprocessor_config.json").write_text("{")
    assert images_of(Checkpoint(tmp_path, {"state_dict": {}})) == found


def test_torchvisions_weights_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from aliasfix.files import models, trained

    net = small()
    trained.remember_library(net, models.Source("torchvision", "efficientnet_b1"), {})
    source, images = known(net) or ("", Preprocessing())
    assert source == "from torchvision's weights of efficientnet_b1"
    assert (images.size, images.resize, images.interpolation) == (240, 255, "bilinear")
    for name in ("fasterrcnn_resnet50_fpn", "no_such_net"):
        other = small()
        trained.remember_library(other, models.Source("torchvision", name), {})
        assert known(other) is None


def test_what_makes_no_sense_in_a_file_says_nothing() -> None:
    assert sensible(size=-1, resize=40, crop_pct=0.5, std=0) == Preprocessing(resize=40)


# What the network sees


@pytest.mark.parametrize("name", ["convnext_atto", "test_vit", "convnext_tiny.in12k_ft_in1k_384"])
def test_the_network_sees_what_timms_transform_makes(name: str, photos: Path) -> None:
    config = timm.get_pretrained_cfg(name).to_dict() | {"architecture": name}
    net = small()
    net.pretrained_cfg = config  # type: ignore[assignment]
    assert (config["crop_mode"] == "squash") == ("384" in name)
    views = Views(photos, net)
    made = create_transform(**resolve_model_data_config(net))
    files = sorted(photos.rglob("*.png"))
    for image, path in zip(views.centres(), files, strict=True):
        assert torch.allclose(image, made(Image.open(path).convert("RGB")), atol=1e-6)


def test_shifts_are_circular_where_little_is_cropped(photos: Path) -> None:
    crops = {0.875: 32, 0.95: 11, 0.98: 0, 1.0: 0}
    assert {
        share: Views(photos, small(), preprocessing=Preprocessing(224, crop_pct=share)).margin for share in crops
    } == (crops)


def test_grey_networks_see_grey(photos: Path) -> None:
    views = Views(photos, small(1), preprocessing=Preprocessing(size=24, mean=(0.2, 0.3, 0.4), std=0.5))
    image = next(iter(views.centres()))
    grey = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24), transforms.ToTensor()])
    path = sorted(photos.rglob("*.png"))[0]
    assert torch.allclose(image, (grey(Image.open(path).convert("L")) - 0.3) / 0.5, atol=1e-6)


OWN = transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


def test_a_transform_of_ones_own_is_taken_everywhere(photos: Path, tmp_path: Path) -> None:
    expected = OWN(Image.open(sorted(photos.rglob("*.png"))[0]))
    assert torch.equal(next(iter(Views(photos, small(), preprocessing=OWN)))[0], expected)
    assert torch.equal(next(iter(ImageFolder(photos, transform=OWN)))[0], expected)
    net = small()
    found = aliasfix.compare(net, aliasfix.convert(net), photos, preprocessing=OWN, metrics=["probability"], passes=1)
    assert (found.setting["images"], found.setting["size"], found.setting["margin"]) == (
        "by the transform given",
        20,
        0,
    )
    model = aliasfix.convert(net)
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[1:])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", aliasfix.DoubtWarning)
        aliasfix.calibrate(model, photos, preprocessing=OWN, method="statistics")
        aliasfix.finetune(model, photos, tmp_path / "run", original=net, preprocessing=OWN, epochs=1, validation=0.3)
    assert set(seen) == {(3, 20, 20)}
    assert known(model) is None
    with pytest.raises(AliasfixError, match=r"augmentation=.* is of timm's transform: do it in the one given"):
        aliasfix.finetune(model, photos, tmp_path / "no", original=net, preprocessing=OWN, augmentation={"hflip": 0})
    with pytest.raises(AliasfixError, match=r"the transform made torch.uint8 \(3, .* it has to end in a float tensor"):
        Views(photos, small(), preprocessing=transforms.PILToTensor())
    found = aliasfix.compare(net, net, photos, preprocessing=OWN, metrics=["corruption"], corruptions=True)
    assert "their pixels are not known" in str(found["corruption"].failed)


@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")
def test_finetuning_holds_out_what_comparing_sees(photos: Path, tmp_path: Path) -> None:
    model = aliasfix.convert(small())
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    aliasfix.finetune(model, photos, tmp_path / "run", preprocessing=DIGITS, epochs=1, validation=photos)
    for image in Views(photos, small(), preprocessing=DIGITS).centres():
        assert sum(torch.equal(image, other) for other in seen) >= 2  # before and after the epoch


def test_calibration_takes_images_from_all_over_the_folder(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        for number in range(30):
            Image.new("RGB", (8, 8), "abc".index(name)).save(tmp_path / name / f"{number}.png")
    views = Views(tmp_path, small(), size=8, most=10)
    assert [label for _, label in views] == [0] * 4 + [1] * 3 + [2] * 3


# Files keep it


def test_a_file_keeps_what_was_given_and_later_commands_take_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = timm.create_model("test_resnet", num_classes=3)
    args = {"model": "test_resnet", "num_classes": 3, "img_size": 32, "crop_pct": 1.0, "std": [0.25] * 3}
    torch.save({"state_dict": net.state_dict(), "args": args}, "net.pth")
    for output in ("out.safetensors", "out.pth", "out"):
        aliasfix.convert_file("net.pth", output, base="timm:test_resnet", preprocessing=Preprocessing(mean=0.25))
        source, images = known(aliasfix.load(output)) or ("", Preprocessing())
        assert source == f"from {output}"
        assert images == Preprocessing(size=32, crop_pct=1.0, mean=0.25, std=[0.25] * 3)
    opened = timm.create_model("local-dir:out", pretrained=True)
    assert prepared(opened).mean == (0.25,)
    config = resolve_model_data_config(opened)
    assert (config["input_size"], config["crop_pct"], config["std"]) == ((3, 32, 32), 1.0, (0.25,) * 3)
    aliasfix.save(aliasfix.load("out.pth"), "again.safetensors")
    assert prepared(aliasfix.load("again.safetensors")).size == 32


@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")
def test_what_a_model_is_trained_with_is_saved_with_it(photos: Path, tmp_path: Path) -> None:
    model = aliasfix.convert(small())
    aliasfix.calibrate(model, photos, preprocessing=DIGITS, method="statistics")
    aliasfix.save(model, tmp_path / "out.safetensors")
    loaded = aliasfix.load(tmp_path / "out.safetensors", small())
    assert known(loaded) == ("from out.safetensors", DIGITS)
    found = aliasfix.finetune(
        loaded, photos, tmp_path / "run", original=small(), preprocessing=Preprocessing(std=0.125), epochs=1
    )
    assert known(aliasfix.load(found.path, small())) == (
        "from best.safetensors",
        Preprocessing(24, mean=0.25, std=0.125),
    )


def test_a_streamed_file_keeps_it(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "net.safetensors")
    given = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    aliasfix.convert_file(*given, base="timm:test_resnet", preprocessing=DIGITS, stream=True)
    assert known(aliasfix.load(tmp_path / "out.safetensors")) == ("from out.safetensors", DIGITS)


@pytest.mark.parametrize("edit", [lambda data: data.update(size="48; rm"), lambda data: data.update(code="os")])
def test_a_record_that_was_edited_is_refused(tmp_path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    from aliasfix.files.record import Record, _digest

    model = aliasfix.convert(small())
    remember(model, DIGITS, "as given")
    aliasfix.save(model, tmp_path / "out.pth")
    data = torch.load(tmp_path / "out.pth", weights_only=True)["aliasfix"]
    edit(data["images"])
    with pytest.raises(AliasfixError, match="edited by hand"):
        Record.from_dict(data)
    data["digests"]["images"] = _digest(data["images"])
    with pytest.raises(AliasfixError, match=r"size='48; rm': give a number|it does not say how images are"):
        Record.from_dict(data)


def test_opening_a_checkpoint_says_where_it_comes_from(tmp_path: Path) -> None:
    net = timm.create_model("test_resnet", num_classes=3)
    torch.save(
        {"state_dict": net.state_dict(), "args": argparse.Namespace(num_classes=3, img_size=48)}, tmp_path / "m.pth"
    )
    model = opening.open_model("timm:test_resnet", weights=tmp_path / "m.pth")
    assert "48x48 from shorter side 50" in str(prepared(model))
    assert "size from m.pth; the rest from timm's configuration of test_resnet" in str(prepared(model))
