"""A metric is one file: in the package, or in another one that registers it."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import aliasfix
from aliasfix import AliasfixError, measure
from aliasfix.comparison import page
from aliasfix.images.views import Views
from aliasfix.measure import Metric, Subject
from aliasfix.measure.metric import metrics
from aliasfix.measure.subject import Setting, along_diagonal

from .conftest import QUICK, classifier, noise

ROOT = Path(__file__).parents[2]
Register = Callable[..., None]


def example() -> str:
    """The metric's file, as CONTRIBUTING shows it."""
    (text,) = re.findall(r"<!-- metric -->\n```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    return text


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Install a package with a module ``flips`` and an entry point of it, as long as the test runs."""

    def register(source: str, entry: str = "FLIPS") -> None:
        (tmp_path / "flips.py").write_text(source)
        info = tmp_path / "steadiness-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: steadiness\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[aliasfix.metrics]\nflips = flips:{entry}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "flips", raising=False)
        metrics.cache_clear()

    yield register
    monkeypatch.undo()
    sys.modules.pop("flips", None)
    metrics.cache_clear()


def flips(model: nn.Module) -> Tensor:
    """What the example measures, from the sweep itself."""
    top1 = measure.sweep(model, noise(), [(d, d) for d in (-4, -2, 0, 2)], size=16).top1
    return torch.stack([(row[1:] != row[:-1]).double().mean() for row in top1])


def test_a_metric_of_another_package_is_in_the_result_the_table_the_json_and_the_page(register: Register) -> None:
    register(example())
    net = classifier()
    pair = net, aliasfix.convert(net)
    found = aliasfix.compare(*pair, noise(), size=16, margin=8, **QUICK)
    assert found.measures[-1].name == "flips"  # after the package's own
    for estimate, model in ((found["flips"].a, pair[0]), (found["flips"].b, pair[1])):
        assert estimate.mean == pytest.approx(flips(model).mean().item())
    assert found["flips"].a.mean > 0
    assert "class changes from one shift to the next" in str(found)
    row = json.loads(found.to_json())["measures"][-1]
    assert (row["name"], row["better_is"], row["a"]["mean"]) == ("flips", "lower", found["flips"].a.mean)
    text = page.page(found)
    assert "<td>class changes" in re.sub(r"<td[^>]*><span>", "<td>", text)
    assert '<section id="flips">' in text
    assert '<figure id="figure-flips">' in text


def test_a_metric_in_a_file_of_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flips.py").write_text(example())
    monkeypatch.setattr(measure, "__path__", [*measure.__path__, str(tmp_path)])
    metrics.cache_clear()
    try:
        assert list(metrics())[-1] == "flips"
        swept = aliasfix.compare_filters(classifier(), ["tri3"], noise(), size=16, margin=8, **QUICK).comparison
        assert swept["flips"].a.mean == pytest.approx(flips(classifier()).mean().item())
    finally:
        monkeypatch.undo()
        sys.modules.pop("aliasfix.measure.flips", None)
        vars(measure).pop("flips", None)
        metrics.cache_clear()


@pytest.mark.parametrize(
    ("change", "entry", "message"),
    [
        (
            ("import annotations", "import annotations\nimport no_such_module"),
            "FLIPS",
            "steadiness .* cannot be loaded",
        ),
        (("", ""), "flips", "the metric flips of steadiness .* is a function"),
        (('name="flips"', 'name="change"'), "FLIPS", "two metrics are named change"),
        (('better="lower"', 'better="smaller"'), "FLIPS", "better is 'higher' or 'lower', not 'smaller'"),
        (('needs=("logits",)', 'needs=("depth",)'), "FLIPS", "no input 'depth'; needs= has logits, maps, labels"),
    ],
)
def test_a_wrong_registration_is_named(register: Register, change: tuple[str, str], entry: str, message: str) -> None:
    source = example().replace(*change)
    assert change[0] in example()
    register(source, entry)
    with pytest.raises(AliasfixError, match=message):
        metrics()


def test_a_metric_that_fails_says_so_in_its_row_and_leaves_the_others(register: Register) -> None:
    register(example().replace(".float().mean(1)", ".float()"))
    net = classifier()
    found = aliasfix.compare(net, net, noise(), size=16, margin=8, metrics=["probability", "flips"], **QUICK)
    assert "metric flips returned (6, 3), not a value for each image" in found["flips"].failed
    assert found["probability"].failed is None


@pytest.mark.parametrize("need", ["labels", "margin", "maps"])
def test_a_metric_without_the_input_it_requires_has_no_row(register: Register, need: str) -> None:
    register(example().replace('needs=("logits",)', f'needs=("{need}",)'))
    net = classifier()
    found = aliasfix.compare(net, net, noise(side=16), margin=0, metrics=["probability", "flips"], **QUICK)
    assert [row.name for row in found.measures] == ["probability"]


def test_a_metric_without_sites_says_so() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = aliasfix.compare(flat, flat, noise(), size=16, metrics=["features", "aliasing", "probability"], **QUICK)
    assert "no layer in common before or after a sampling site" in found["features"].failed
    assert "no strided module subsamples at a site of the plan" in found["aliasing"].failed


def test_a_pass_that_metrics_share_runs_once_even_if_it_fails() -> None:
    subject, calls = Subject(classifier(), Views(noise(), classifier(), 16), Setting()), []

    def fails(given: Subject) -> Tensor:
        calls.append(given)
        raise AliasfixError("it fails")

    for _ in range(2):
        with pytest.raises(AliasfixError, match="it fails"):
            subject.once(fails)
    assert calls == [subject]
    assert subject.once(along_diagonal) is subject.once(along_diagonal)


def test_both_networks_passes_are_in_the_comparison(found: aliasfix.Comparison) -> None:
    one, two = found.both(along_diagonal)
    assert one.shifts == two.shifts
    assert torch.equal(measure.variation(one), found.variation[0])
    assert found.both(lambda subject: None) is None


def test_metrics_are_described_alike() -> None:
    known = metrics()
    assert len(known) >= 14
    for name, metric in known.items():
        assert isinstance(metric, Metric)
        assert metric.name == name
        assert metric.title[0].islower()
    assert [m.order for m in known.values()] == sorted({m.order for m in known.values()})
