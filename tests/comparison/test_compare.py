"""Two networks side by side: known answers, agreement with the measures, and what happens when a measure fails."""

import dataclasses
import importlib.metadata
import json
import warnings

import pytest
import skimage.data
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import aliasfix
from aliasfix import AliasfixError, measure
from aliasfix.comparison import observe, page
from aliasfix.comparison.bootstrap import paired
from aliasfix.comparison.cost import memory
from aliasfix.measure import metric

from .conftest import QUICK, classifier, noise


def test_figures_are_those_of_the_measures(found):
    net = classifier()
    alone = measure.crop_consistency(net, noise(), size=16, margin=8, passes=2)
    assert found["consistency"].a.mean == pytest.approx(alone.agreement.double().mean().item())
    assert found["change"].a.mean == pytest.approx(alone.change.mean().item(), rel=1e-5)
    assert found["agreement"].a.mean == 1
    assert found["features"].better is True
    assert found["aliasing"].better is True
    assert found.labelled is False


def test_a_network_against_itself_has_no_difference():
    net = classifier()
    same = aliasfix.compare(net, aliasfix.convert(net, "delta1"), noise(), size=16, margin=8, **QUICK)
    for name in ("consistency", "change", "variation", "withstands", "probability", "agreement", "features"):
        assert same[name].difference.mean == pytest.approx(0, abs=1e-6)
        assert same[name].better is None
    assert "no difference" in same.verdict


def test_second_network_is_watched_on_the_class_that_the_first_gives(found):
    net = classifier()
    with torch.no_grad():
        classes = net(noise()[:, :, 4:20, 4:20]).argmax(1).tolist()
        chances = aliasfix.convert(net)(noise()[:, :, 4:20, 4:20]).softmax(1)
    assert classes != chances.argmax(1).tolist()
    assert len(found.curves) == 6
    for curve in found.curves:
        index = int(curve.image.removeprefix("image ")) - 1
        assert curve.label == classes[index]
        assert curve.b[curve.shifts.index(0.0)] == pytest.approx(chances[index, curve.label].item(), abs=1e-5)


def test_labels_give_accuracy(labelled):
    alone = measure.crop_consistency(
        classifier(), [(noise(), torch.tensor([0, 1, 2, 3, 4, 0]))], size=16, margin=8, passes=2
    )
    assert labelled["top1"].a.mean == pytest.approx(alone.top1.mean().item())
    assert labelled["top5"].a.mean == 1
    assert "accuracy" in labelled.verdict


def test_labels_give_accuracy_by_position(labelled):
    net, images = classifier(), [(noise(), torch.tensor([0, 1, 2, 3, 4, 0]))]
    for at, shifts in ((labelled.grid, measure.grid(1)), (labelled.diagonal, [(d, d) for d in (-4, -2, 0, 2)])):
        assert list(at.shifts) == shifts
        for values, network in ((at.a, net), (at.b, aliasfix.convert(net))):
            alone = measure.accuracy_by_position(measure.sweep(network, images, shifts, size=16))
            assert torch.equal(values, alone)
    data = json.loads(labelled.to_json())["accuracy_by_position"]
    assert data["grid"]["a"] == labelled.grid.a.tolist()
    assert data["diagonal"]["b"] == labelled.diagonal.b.tolist()


def test_without_labels_there_is_no_accuracy(found):
    assert found.grid is found.diagonal is None


def test_learned_filters(found):
    assert found.kernels == {name: (value, value) for name, value in measure.filter_variation(classifier()).items()}
    assert list(found.kernels) == ["0", "3"]
    other = aliasfix.compare(classifier(), classifier(1), noise(), size=16, metrics=["probability"], **QUICK)
    assert list(other.kernels) == ["0", "3"]
    assert all(one != two for one, two in other.kernels.values())


def test_without_a_margin_shifts_are_circular():
    net = classifier()
    found = aliasfix.compare(net, aliasfix.convert(net), noise(side=16), margin=0, **QUICK)
    alone = measure.circular_consistency(net, noise(side=16), passes=2)
    assert found["consistency"].a.mean == pytest.approx(alone.agreement.double().mean().item())


def test_json_table_and_verdict_say_the_same(found):
    data = json.loads(found.to_json())
    assert data["verdict"] == found.verdict
    assert found.verdict.count(". ") == 0
    by_name = {m["name"]: m for m in data["measures"]}
    assert len(by_name) == len(found.measures) >= 8
    for one in found.measures:
        assert by_name[one.name]["b"]["mean"] == one.b.mean
        assert one.kind.title in str(found)
    assert data["plan"]["recipe"]["filter"] == "tri3"
    assert data["versions"]["torch"] == importlib.metadata.version("torch")


def test_seed_decides():
    net = classifier()
    one, two, other = (
        aliasfix.compare(net, aliasfix.convert(net), noise(), size=16, margin=8, seed=seed, **QUICK)
        for seed in (1, 1, 2)
    )
    assert one.to_json() == two.to_json() != other.to_json()


def test_paired_bootstrap_by_hand():
    a = torch.arange(50.0)
    _, _, difference = paired(a, a + torch.tensor([1.0, -1.0]).repeat(25))
    assert difference.mean == 0
    assert difference.high == pytest.approx(1.96 / 50**0.5, rel=0.15)  # the differences alone, not a's spread
    assert difference.low == pytest.approx(-1.96 / 50**0.5, rel=0.15)
    assert paired(a[:4], a[:4])[0].low is None
    assert paired(a, a.where(a > 0, torch.nan))[0].mean == 25


class Moody(nn.Module):
    """Says NaN where the first pixel is large."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.net, self.large = classifier(), large

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).where(x[:, :1, 0, 0] < self.large, torch.nan)


def test_what_fails_takes_nothing_with_it():
    found = aliasfix.compare(Moody(99), Moody(1.5), noise(), size=16, margin=8, **QUICK)
    assert found["consistency"].failed.startswith("converted: the model returned NaN for ")
    assert found.get("consistency") is None
    assert found["aliasing"].failed is None
    assert "not measured: converted: the model returned NaN" in " ".join(str(found).split())
    json.loads(found.to_json())


def fails(with_: Exception):
    def measure(subject):
        raise with_

    return measure


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "original: out of memory: lower batch_size (--batch-size)"),
        (RuntimeError("stack expects each tensor to be equal size"), "original: a mistake of the measure itself"),
    ],
)
def test_a_measure_fails_in_our_words(monkeypatch, error, told):
    known = dict(metric.metrics())
    known["aliasing"] = dataclasses.replace(known["aliasing"], measure=fails(error))
    monkeypatch.setattr(observe, "metrics", lambda: known)
    net = classifier()
    found = aliasfix.compare(net, net, noise(), size=16, margin=8, metrics=["aliasing", "probability"], **QUICK)
    assert found["aliasing"].failed.startswith(told)
    assert "equal size" not in found["aliasing"].failed
    assert any("equal size" in note and "test_compare.py" in note for note in found.notes) == ("mistake" in told)
    assert found["probability"].failed is None


def test_a_network_that_fails_is_named_as_the_cause():
    class Few(nn.Module):
        def forward(self, x):
            return classifier()(x) if len(x) < 3 else classifier()(x).view(7, -1)

    found = aliasfix.compare(classifier(), Few(), noise(), size=16, margin=8, metrics=["consistency"], **QUICK)
    assert found["consistency"].failed.startswith("converted: the network does not run on all that the measure gives")
    complex_ = Wrapped(lambda y: y + 0j)
    found = aliasfix.compare(complex_, complex_, noise(), size=16, margin=8, metrics=["consistency"], **QUICK)
    assert "complex numbers: pass output=" in found["consistency"].failed


def test_a_sweep_without_consistency_takes_no_filter(tmp_path):
    found = aliasfix.compare_filters(Moody(-99), ["rect2", "tri3"], noise(), size=16, margin=8, **QUICK)
    assert found.verdict.startswith("No filter is shown to be better: original: the model returned NaN for ")
    assert len(found.rows) == 2
    assert all(row.consistency is None and row.features < found.original.features for row in found.rows)
    assert found.comparison["aliasing"].better is True
    assert "<figure" in page.page(found.comparison, found)
    json.loads(found.to_json())
    assert "No filter is shown to be better" in " ".join(str(found).split())


def test_filters_that_break_the_network_leave_the_others():
    class Fragile(nn.Module):
        """Says NaN once its first features are smooth."""

        def __init__(self):
            super().__init__()
            self.pool, self.rest = nn.MaxPool2d(2), classifier()[3:]
            self.stem = classifier()[:2]

        def forward(self, x):
            pooled = self.pool(self.stem(x))
            rough = pooled.diff(dim=-1).abs().mean((1, 2, 3), keepdim=True)[:, 0, 0]
            return self.rest(pooled).where(rough > self.limit, torch.nan)

    net = Fragile().eval()
    rough = {}
    for filter in ("rect2", "bin7"):
        converted = aliasfix.convert(classifier(), filter)[:3]
        rough[filter] = converted(noise()).diff(dim=-1).abs().mean((1, 2, 3))
    net.limit = (rough["rect2"].min() + rough["bin7"].max()).item() / 2
    assert rough["bin7"].max() < net.limit < rough["rect2"].min()
    found = aliasfix.compare_filters(net, ["bin7", "rect2"], noise(), size=16, margin=8, **QUICK)
    assert found.taken == "rect2"
    rows = {row.filter: row for row in found.rows}
    assert rows["bin7"].consistency is None
    assert rows["rect2"].consistency is not None
    assert rows["bin7"].features is not None


def test_label_mismatch_is_said_and_takes_nothing_with_it():
    net, labels = classifier(), torch.tensor([0, 1, 2, 3, 4, 99])
    found = aliasfix.compare(net, aliasfix.convert(net), [(noise(), labels)], size=16, margin=8, **QUICK)
    assert "label mismatch: labels are 0 to 99 and the model has 5 classes" in found["consistency"].failed
    assert found["features"].better is True
    with pytest.raises(AliasfixError, match=r"label mismatch: 6 image\(s\) with 2 labels"):
        aliasfix.compare(net, net, [(noise(), [0, 1])], size=16, margin=8, **QUICK)


def test_an_image_that_is_too_small_is_named():
    net, images = classifier(), [noise()[0], noise()[1, :, :20, :24]]
    found = aliasfix.compare(net, net, images, size=16, margin=8, metrics=["consistency"], **QUICK)
    assert "image 2 is 20x24, without 16 + 8 pixels" in found["consistency"].failed


class Wrapped(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.net, self.wrap = classifier(), wrap

    def forward(self, x: torch.Tensor):
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    ("wrap", "hint"),
    [
        (lambda y: {"logits": y}, "a dict with 'logits': pass output='logits'"),
        (lambda y: (y, 1), "a tuple of 2: pass output=0"),
        (lambda y: [{"boxes": y}], "pass output= a function"),
        (lambda y: y[0, 0], "neither logits"),
    ],
)
def test_unexpected_outputs_say_what_to_pass(wrap, hint):
    with pytest.raises(AliasfixError, match=hint):
        aliasfix.compare(Wrapped(wrap), classifier(), noise(), size=16, **QUICK)


def test_output_is_taken_where_it_is_said_to_be():
    net = Wrapped(lambda y: {"logits": y})
    found = aliasfix.compare(net, net, noise(), size=16, margin=8, output="logits", **QUICK)
    assert found["agreement"].b.mean == 1


def test_image_to_image_networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 3, padding=1))
    found = aliasfix.compare(net, aliasfix.convert(net, stem="full"), noise(side=16), **QUICK)
    assert [m.name for m in found.measures if m.failed is None] == [
        "stability", "label_agreement", "output_variation", "features", "aliasing"
    ]  # fmt: skip
    assert found["stability"].better is True
    assert "steadier" in found.verdict
    with pytest.raises(AliasfixError, match="they do different things"):
        aliasfix.compare(net, classifier(), noise(side=16), **QUICK)
    with pytest.raises(AliasfixError, match="needs a classifier"):
        aliasfix.compare_filters(net, ["tri3"], noise(side=16), **QUICK)


def test_images_that_cannot_be_used():
    net = classifier()
    cases = {
        "generator": (image for image in noise()),
        "no 30 \\+ 0 pixels": noise(),
        "the iterable is empty": [],
    }
    for message, images in cases.items():
        with pytest.raises(AliasfixError, match=message):
            aliasfix.compare(net, net, images, size=30 if "30" in message else 16, margin=0)
    with pytest.raises(AliasfixError, match="no measure speed"):
        aliasfix.compare(net, net, noise(), metrics=["speed"])


def test_folders(tmp_path):
    for number in range(5):
        pixels = torch.randint(256, (40, 50, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.frombytes("RGB", (50, 40), bytes(pixels.flatten().tolist())).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    net = classifier()
    found = aliasfix.compare(net, aliasfix.convert(net), tmp_path, size=16, margin=8, **QUICK)
    assert found.images == 5
    assert found.notes == (f"1 of 6 images in {tmp_path} cannot be read and were skipped: broken.png",)
    assert {curve.image for curve in found.curves} == {f"{n}.png" for n in range(5)}

    (tmp_path / "cats").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "cats" / "0.png")
    found = aliasfix.compare(net, net, tmp_path, size=16, margin=8, metrics=["consistency"], **QUICK)
    assert found.labelled is False
    assert "1 class folders, the model 5 classes" in " ".join(found.notes)


@pytest.fixture
def photos(tmp_path):
    """Two folders of photographs, one of each class of a network of two."""
    for name in ("coffee", "rocket"):
        (tmp_path / name).mkdir()
        pixels = getattr(skimage.data, name)()
        for number in range(2):
            part = pixels[100:140, 100 * number : 100 * number + 40]
            Image.fromarray(part).save(tmp_path / name / f"{number}.png")
    return tmp_path


def two_classes() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4),
                             nn.Flatten(), nn.Linear(128, 2)).eval()  # fmt: skip


@pytest.mark.parametrize("labelled", [True, False])
def test_corruptions(photos, labelled):
    pytest.importorskip("imagecorruptions")
    a, b = two_classes(), aliasfix.convert(two_classes(), "bin5")
    if not labelled:
        for path in list(photos.glob("*/*")):
            path.rename(photos / f"{path.parent.name}-{path.name}")
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's
        found = aliasfix.compare(
            a, b, photos, size=32, margin=8, metrics=["corruption"], corruptions=True, confidence=0.9
        )
        folder = measure.ImageFolder(photos, size=40, resize=40)
        errors = []
        for model in (a, b):
            pairs = [(image[:, 4:36, 4:36], label) for image, label in folder.pixels()]
            if not labelled:
                clean = [model(image[None, :, 4:36, 4:36]).argmax().item() for image in folder]
                pairs = [(image, own) for (image, _), own in zip(pairs, clean, strict=True)]
            errors.append(measure.corruption_errors(model, pairs))
    assert len(found.corruptions.names) == 15
    for own, estimate, alone in zip(
        (found.corruptions.a, found.corruptions.b), (found["corruption"].a, found["corruption"].b), errors, strict=True
    ):
        assert own == pytest.approx(alone.wrong.float().mean((1, 2)).tolist())
        assert estimate.mean == pytest.approx(alone.wrong.float().mean().item())
    assert found.corruptions.labelled == found.labelled == labelled
    if min(found.corruptions.a):
        wanted = measure.mean_corruption_error(errors[1], errors[0])
        assert found.corruptions.mean_relative == pytest.approx(wanted)
        assert f"{wanted:.2f}" in str(found)
    else:
        assert found.corruptions.mean_relative is None
    text = " ".join(page.page(found).split())
    assert "motion blur" in text
    assert ("of a wrong class" if labelled else "without labels: of another class") in text


def test_corruptions_need_pixels(found):
    assert "corruption" not in {measure.name for measure in found.measures}
    net = classifier()
    asked = aliasfix.compare(net, net, noise(), size=16, metrics=["probability"], corruptions=True, **QUICK)
    assert "give a folder of them" in asked["corruption"].failed
    assert asked["probability"].failed is None


def test_classes_are_called_by_their_folders_or_by_imagenet(photos):
    found = aliasfix.compare(two_classes(), two_classes(), photos, size=32, metrics=["probability"], **QUICK)
    assert {curve.called for curve in found.curves} == {"coffee", "rocket"}
    assert all(curve.called == curve.image.split("/")[0] for curve in found.curves)
    for build in (timm.create_model, torchvision.models.get_model):
        net = build("resnet18").eval()
        found = aliasfix.compare(net, net, noise(2, 32), margin=0, metrics=["probability"], **QUICK)
        names = timm.data.ImageNetInfo().label_descriptions()
        assert [curve.called for curve in found.curves] == [names[c.label].split(",")[0] for c in found.curves]
        assert found.curves[0].called in page.page(found)


def test_filters_are_ranked_and_one_is_taken(swept):
    net = classifier()
    assert len({row.consistency for row in swept.rows}) == 2
    assert [row.consistency for row in swept.rows] == sorted((r.consistency for r in swept.rows), reverse=True)
    assert {row.filter for row in swept.rows} == {"rect2", "tri3"}
    assert swept.original.agreement == 1
    assert swept.taken in swept.verdict
    assert swept.comparison.plan.recipe.filter == swept.taken
    converted = aliasfix.convert(net, swept.taken)
    alone = measure.crop_consistency(converted, noise(), size=16, margin=8, passes=2)
    row = next(row for row in swept.rows if row.filter == swept.taken)
    assert row.consistency == pytest.approx(alone.agreement.double().mean().item())
    assert row.bytes > swept.original.bytes
    assert json.loads(swept.to_json())["taken"] == swept.taken
    assert aliasfix.report(net) is None
    assert [m.name for m in swept.comparison.measures] == [
        "consistency", "change", "variation", "withstands", "probability", "agreement", "features", "aliasing"
    ]  # fmt: skip


def test_sweeps_that_make_no_sense():
    net = classifier()
    for message, model, filters in (
        ("at least one", net, []),
        ("converted already", aliasfix.convert(net), ["tri3"]),
        ("nothing to convert", nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 5)), ["tri3"]),
    ):
        with pytest.raises(AliasfixError, match=message):
            aliasfix.compare_filters(model, filters, noise(), size=16, margin=8, **QUICK)
    with pytest.raises(AliasfixError, match="detail='bin4' is none of the filters compared: rect2, tri3"):
        aliasfix.compare_filters(net, ["rect2", "tri3"], noise(), detail="bin4")


def test_any_filter_can_be_shown_in_detail(swept):
    other = next(row.filter for row in swept.rows if row.filter != swept.taken)
    found = aliasfix.compare_filters(classifier(), ["rect2", "tri3"], noise(), size=16, margin=8, detail=other, **QUICK)
    assert found.taken == swept.taken
    assert found.comparison.names == ("original", other)
    assert found.comparison.plan.recipe.filter == other
    row = next(row for row in found.rows if row.filter == other)
    assert row.features == pytest.approx(found.comparison["features"].b.mean)
    assert row.features < found.original.features


def test_memory_by_hand():
    three = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1), nn.Conv2d(1, 4, 1))  # the first is gone at the last
    assert memory(three, torch.ones(2, 1, 8, 8)) == (4 + 1) * 64 * 4
    assert memory(nn.ReLU(inplace=True), torch.ones(2, 1, 8, 8)) == 0
