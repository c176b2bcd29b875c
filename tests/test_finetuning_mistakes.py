"""What can go wrong in fine-tuning: said in one line, before training where it can be, and nothing is lost."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import aliasfix
from aliasfix.cli import app
from aliasfix.errors import AliasfixError

from .finetuning import net, photographs

pytestmark = pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # of networks with random weights


def data(count=12, classes=3):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 3, 16, 16, generator=generator), torch.arange(count) % classes)


def refused(out, images, model=None, **options):
    """The message; nothing is trained, and nothing written."""
    model = model or net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(AliasfixError) as caught:
        aliasfix.finetune(model, images, out, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not out.exists() or not list(out.iterdir())
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path):
    return photographs(tmp_path / "images", count=4)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def test_a_folder_that_is_missing_or_empty(tmp_path, out):
    assert "is not a folder" in refused(out, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert f"no image in {tmp_path / 'empty'}" in refused(out, tmp_path / "empty")


def test_one_class(tmp_path, out):
    one = photographs(tmp_path / "one", classes=1)
    assert "has one class folder" in refused(out, one)
    aliasfix.finetune(net(), one, out, distillation=1, epochs=1, size=16)


def test_class_folders_that_the_model_has_not(folder, out):
    assert "3 class folders and the model has 5 classes: build it with num_classes=3" in refused(
        out, folder, net(5), size=16
    )


def test_images_that_cannot_be_read_are_named_and_skipped(folder, out):
    whole = (folder / "class1" / "00.png").read_bytes()
    (folder / "class1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "class2" / "text.jpg").write_text("no image")
    Image.effect_noise((64, 64), 90).save(folder / "class0" / "whole.jpg")
    cut = (folder / "class0" / "whole.jpg").read_bytes()
    (folder / "class0" / "short.jpg").write_bytes(cut[: len(cut) - 400])
    with pytest.warns(
        UserWarning, match="3 of 16 images in .* skipped: class0/short.jpg, class1/cut.png, class2/text.jpg"
    ):
        aliasfix.finetune(net(), folder, out, epochs=1, size=16)
    for path in folder.rglob("*.*"):
        path.write_text("no image")
    assert "16 of 16 images" in refused(out / "again", folder)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (TensorDataset(torch.randint(0, 255, (4, 3, 16, 16)).byte()), "the loader gave torch.uint8"),
        (TensorDataset(torch.randn(4, 3, 16)), r"the loader gave torch.float32 (2, 3, 16)"),
        (TensorDataset(torch.randn(4, 3, 16, 16), torch.rand(4)), "labels are no class indices"),
        (TensorDataset(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])), "labels are 2 to 3 and the model has 3"),
        (TensorDataset(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, -1])), "labels are -1 to 2"),
    ],
)
def test_batches_that_are_no_images_with_labels(batch, said, out):
    order = [3, 2, 1, 0]  # the last label first: what is wrong is found before training
    assert said in refused(out, DataLoader(batch, 2, sampler=order))


def test_models_that_are_no_classifiers(out):
    maps = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert "values have no labels here: distillation=1" in refused(out, DataLoader(data(), 4), maps)
    assert "the original has 5 classes and the model 3" in refused(out, DataLoader(data(), 4), original=net(5))
    frozen = net().requires_grad_(False)
    assert "there is nothing to train" in refused(out, DataLoader(data(), 4), frozen)
    assert "call model.float()" in refused(out, DataLoader(data(), 4), net().bfloat16())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"distillation": 1.5}, "distillation must be between 0 and 1, not 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"optimizer": "adamv"}, "close to it: adam"),
        ({"schedule": "cosinus"}, "timm makes no schedule 'cosinus'"),
        ({"mixed_precision": "fp12"}, "does not take mixed_precision='fp12'"),
        ({"augmentation": {"hflop": 1}}, "hflop"),
        ({"validation": "elsewhere"}, "elsewhere is not a folder"),
        ({"validation": 0.99}, "too few images"),
    ],
)
def test_options_that_do_not_exist(options, said, folder, out):
    assert said in refused(out, folder, **{"size": 16} | options)


def test_data_that_are_neither_a_folder_nor_a_loader(out):
    assert "not a list" in refused(out, [torch.ones(1, 3, 16, 16)])
    kept = DataLoader(data(), 4, num_workers=1, persistent_workers=True)
    assert "set it to False" in refused(out, kept)


def test_no_labels_where_they_are_asked_for(out):
    unlabelled = DataLoader(data().tensors[0], 4)
    assert "distillation=1 learns from the original alone" in refused(out, unlabelled, distillation=0.5)


def test_a_calibrated_model_needs_its_original(out):
    model = net()
    aliasfix.calibrate(model, torch.randn(16, 3, 16, 16), size=16, method="least-squares")
    assert "give original=" in refused(out, DataLoader(data(), 4), model)


class Poisoned(TensorDataset):
    """Images of which one is not a number."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (image * float("nan") if index == 9 else image), label


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(out):
    model = net(dropout=0.0)
    loader = DataLoader(Poisoned(*data().tensors), 4, sampler=[*range(12)])
    with pytest.raises(
        AliasfixError, match=r"the loss was nan at step 3 \(epoch 1\).*lower lr.*best.safetensors holds"
    ):
        aliasfix.finetune(model, loader, out, epochs=2, validation=DataLoader(data(), 4), save_every=1)
    assert torch.load(out / "state.pth", weights_only=True)["step"] == 2
    assert all(torch.equal(value, net().state_dict()[name]) for name, value in model.state_dict().items())
    aliasfix.load(out / "best.safetensors", net())


def test_weights_that_are_gone_are_never_saved(out):
    with pytest.raises(AliasfixError, match=r"not finite after step \d|the loss was (nan|inf) at step"):
        aliasfix.finetune(net(), DataLoader(data(), 4), out, lr=1e38, optimizer="sgd", epochs=3, save_every=1)
    stored = torch.load(out / "state.pth", weights_only=True)["model"]
    assert stored.keys() == net().state_dict().keys()
    assert all(value.isfinite().all() for value in stored.values())


class Hungry(nn.Module):
    """Needs more memory than there is, from a training step on."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        if self.training:
            torch.empty(2**50)
        return self.head(x.mean((2, 3)))


def test_out_of_memory_says_what_to_lower(out):
    with pytest.raises(AliasfixError, match="out of memory at step 1: lower batch_size=4 or the images' size, or give"):
        aliasfix.finetune(Hungry(), DataLoader(data(), 4), out, batch_size=4)
    assert (out / "best.safetensors").exists()


def test_a_run_goes_on_only_as_it_was_begun(out):
    def run(model=None, loader=None, **options):
        return aliasfix.finetune(model or net(), loader or DataLoader(data(), 4), out, **{"epochs": 1} | options)

    first = run()
    with pytest.raises(AliasfixError, match="holds a run: go on with it"):
        run()
    for options, said in (
        ({"lr": 1.0}, "with lr=0.0001, not 1.0"),
        ({"loader": DataLoader(data(), 6)}, "with steps an epoch=3, not 2"),
        ({"original": net()}, "the original's weights"),
    ):
        changed = {"model": None} | options
        if "original" in options:
            changed["original"] = aliasfix.revert(net())
            changed["original"][-1].bias.data += 1
        with pytest.raises(AliasfixError, match=said):
            run(**changed, resume=True)
    assert run(resume=True) == first
    (out / "state.pth").write_bytes((out / "state.pth").read_bytes()[:1000])
    with pytest.raises(AliasfixError, match=r"state.pth is damaged"):
        run(resume=True)
    (out / "state.pth").unlink()
    with pytest.raises(AliasfixError, match="of another run"):
        run()


def test_the_command(folder, out, tmp_path):
    def command(*arguments):
        return CliRunner().invoke(app, ["finetune", *map(str, arguments)])

    given = ("timm:resnet10t", "--arg", "num_classes=3", "--random-weights", "--images", folder, "-o", out)
    small = ("--size", 32, "--batch-size", 4, "--epochs", 1, "--validation", 0.3, "--augment", "hflip=0")
    done = command(*given, *small)
    assert done.exit_code == 0, done.output
    assert f"{out / 'best.safetensors'}: the best weights, those of epoch" in done.output
    loaded = aliasfix.load(out / "best.safetensors")
    assert aliasfix.report(loaded).converted
    again = command(*given, *small)
    assert again.exit_code == 1
    assert "resume" in again.output
    assert "Traceback" not in again.output
    assert command(*given, *small, "--resume", "--json").exit_code == 0
    onwards = (out / "best.safetensors", "--images", folder, "-o", tmp_path / "second", *small)
    if aliasfix.report(loaded).calibration:
        assert "give original=" in command(*onwards).output
    aliasfix.save(aliasfix.convert(loaded, inplace=True), tmp_path / "plain.safetensors")
    assert command(*onwards, "--original", tmp_path / "plain.safetensors").exit_code == 0
    missing = command("timm:resnet10t", "--random-weights", "--images", tmp_path / "none", "-o", tmp_path / "third")
    assert (missing.exit_code, "Traceback" in missing.output) == (1, False)
    assert "is not a folder" in missing.output
