"""Another package adds a rule, filters and a format by entry points; a metric is in tests/comparison/test_metric.py."""

import copy
import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner

import aliasfix
from aliasfix import surgery
from aliasfix.cli import app
from aliasfix.files.formats import formats
from aliasfix.filters.family import families
from aliasfix.planning.plan import Link
from aliasfix.planning.rule import by_name, by_op, rules

ROOT = Path(__file__).parents[1]
CACHES = (families, formats, rules, by_name, by_op)
RULE = """
from aliasfix.planning.rule import Case, Rule, Site


class EveryThird(Rule):
    \"\"\"``every_third``, which keeps every third sample.\"\"\"

    signatures = {"every_third": ("input",)}

    def site(self, call, trace):
        return Site((3, 3), reason="It is somebody else's to keep every third sample.")
"""


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package ``thirds`` with one module and an entry point, as long as the test runs."""

    def register(source: str, group: str, value: str) -> None:
        (tmp_path / "thirds.py").write_text(source)
        info = tmp_path / "thirds-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirds\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nthirds = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "thirds", raising=False)
        for cache in CACHES:
            cache.cache_clear()

    yield register
    monkeypatch.undo()
    sys.modules.pop("thirds", None)
    for cache in CACHES:
        cache.cache_clear()


def page(section: str) -> str:
    """The example of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(f"<!-- {section} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_filter_of_another_package(register: Callable[..., None]) -> None:
    register(page("filter"), "aliasfix.filters", "thirds:FAMILY")
    assert aliasfix.filters.names()[-1] == "gauss"
    assert sum(aliasfix.filters.taps("gauss", 3)) == pytest.approx(1)
    model = aliasfix.convert(nn.Sequential(nn.MaxPool2d(2)), "gauss")
    row = [torch.tensor(-2.0 * (n / 2) ** 2).exp().item() for n in range(-2, 3)]
    assert aliasfix.filters.taps("gauss") == pytest.approx([tap / sum(row) for tap in row])
    assert torch.allclose(model(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 4, 4))


def test_a_rule_of_another_package(register: Callable[..., None]) -> None:
    register(RULE, "aliasfix.rules", "thirds:EveryThird")
    assert rules()[-1].name == "thirds"
    assert by_op()["every_third"] == (rules()[-1],)


def test_a_rule_that_is_not_for_sampling(register: Callable[..., None]) -> None:
    register(page("substitute"), "aliasfix.rules", "thirds:Parabola")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU()).eval()
    x = torch.randn(2, 3, 12, 12)
    plan = aliasfix.inspect(model, "delta1", example_input=x)
    assert [(step.op, step.stride, step.form) for step in plan] == [
        ("relu", (), "substitute"),
        ("max_pool2d", (2, 2), "dense"),
        ("relu", (), "substitute"),
    ]
    assert "in place of relu in 4" in str(plan)
    assert "3 of 3 operations converted" in plan.summary
    assert aliasfix.Plan.from_json(plan.to_json()) == plan
    converted = aliasfix.convert(model, "delta1", example_input=x)
    first = model[0](x)
    pooled = nn.functional.max_pool2d(first * (first + 1) / 4 + 1 / 8, 2)
    last = model[3](pooled)
    assert torch.allclose(converted(x), last * (last + 1) / 4 + 1 / 8, atol=1e-6)
    assert torch.equal(aliasfix.revert(converted)(x), model(x))
    laws = {law.name: law for law in aliasfix.verify(converted, model, example_input=x)}
    assert all(law.ok for law in laws.values())
    assert "rules for activation" in laws["delta1 gives the original's output"].detail


def test_a_plan_whose_rule_is_not_installed(register: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    register(page("substitute"), "aliasfix.rules", "thirds:Parabola")
    plan = aliasfix.inspect(nn.Sequential(nn.ReLU()))
    monkeypatch.undo()
    for cache in CACHES:
        cache.cache_clear()
    with pytest.raises(aliasfix.AliasfixError, match="no rule is named 'thirds': install the package that has it"):
        surgery.apply(nn.Sequential(nn.ReLU()), plan)


def test_links_are_part_of_a_plan() -> None:
    link = Link("phase", ("layer1", "max_pool2d", 0), (("layer2.0.conv1", "conv2d", 0), ("layer2.0", "add", 0)))
    plan = dataclasses.replace(aliasfix.inspect(nn.MaxPool2d(2)), links=(link,))
    assert aliasfix.Plan.from_json(plan.to_json()) == plan
    with pytest.raises(aliasfix.AliasfixError, match="this is no plan of aliasfix"):
        aliasfix.Plan.from_json(plan.to_json().replace('"decides"', '"decided"'))


@torch.no_grad()
def test_a_format_of_another_package(register: Callable[..., None], tmp_path: Path) -> None:
    register(page("format"), "aliasfix.formats", "thirds:FORMAT")
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2)).eval(), torch.randn(1, 3, 9, 9)
    model = aliasfix.convert(net)
    aliasfix.save(model, tmp_path / "net.npz")
    assert torch.equal(aliasfix.load(tmp_path / "net.npz", copy.deepcopy(net))(x), model(x))
    with pytest.raises(aliasfix.AliasfixError, match=r"net\.npz does not say how its model is built"):
        aliasfix.load(tmp_path / "net.npz")
    (tmp_path / "net.npz").write_bytes((tmp_path / "net.npz").read_bytes()[:-30])
    with pytest.raises(aliasfix.AliasfixError, match=r"net\.npz is damaged, or no npz file: BadZipFile"):
        aliasfix.load(tmp_path / "net.npz", net)


def test_a_format_of_another_package_converts(register: Callable[..., None], tmp_path: Path) -> None:
    register(page("format"), "aliasfix.formats", "thirds:FORMAT")
    torch.manual_seed(0)
    state = torchvision.models.squeezenet1_1(num_classes=3).state_dict()
    torch.save({"model": state, "epoch": 3}, tmp_path / "net.pth")
    base = {"base": "torchvision:squeezenet1_1", "base_args": {"num_classes": 3}}
    done = aliasfix.convert_file(tmp_path / "net.pth", tmp_path / "a.npz", **base)
    assert done.left_out == ("epoch",)
    aliasfix.convert_file(tmp_path / "a.npz", tmp_path / "b.pth", **base)
    for name in ("a.npz", "b.pth"):
        loaded = aliasfix.load(tmp_path / name)
        assert aliasfix.report(loaded) == done.plan
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_a_format_of_another_package_is_listed(register: Callable[..., None], tmp_path: Path) -> None:
    register(page("format"), "aliasfix.formats", "thirds:FORMAT")
    rows = dict(line.split("  ", 1) for line in CliRunner().invoke(app, ["list", "formats"]).stdout.splitlines())
    assert rows[".npz"].strip() == "npz: weights, read and written"
    wrong = CliRunner().invoke(app, ["convert", "resnet18", "-o", "net.onnx"])
    assert "the suffix tells the format, one of .pth, .pt, .tar, .ckpt, .safetensors, .npz" in wrong.stderr
    with pytest.raises(aliasfix.AliasfixError, match=r"one of .*, \.npz$"):
        aliasfix.save(nn.Identity(), tmp_path / "net.onnx")
    with pytest.raises(aliasfix.AliasfixError, match=r"a\.npz cannot be streamed, as a \.safetensors or .* can"):
        aliasfix.convert_file(tmp_path / "a.npz", tmp_path / "b.npz", base="torchvision:squeezenet1_1", stream=True)


@pytest.mark.parametrize(
    ("group", "source", "value", "message"),
    [
        ("aliasfix.filters", "FAMILY = 3", "thirds:FAMILY", "is a int: make it an aliasfix.filters.Family"),
        ("aliasfix.filters", "import nowhere", "thirds:FAMILY", "the filters thirds of thirds .*cannot be loaded"),
        ("aliasfix.formats", "FORMAT = 3", "thirds:FORMAT", "is a int: make it an aliasfix.files.formats.Format"),
        ("aliasfix.formats", "import nowhere", "thirds:FORMAT", "the format thirds of thirds .*cannot be loaded"),
        ("aliasfix.rules", "RULE = dict", "thirds:RULE", "makes a dict: name a class derived from Rule"),
        ("aliasfix.rules", "RULE = nothing", "thirds:RULE", "the rule thirds of thirds .*cannot be loaded"),
    ],
)
def test_a_registration_that_is_wrong(
    register: Callable[..., None], group: str, source: str, value: str, message: str
) -> None:
    register(source, group, value)
    with pytest.raises(aliasfix.AliasfixError, match=message):
        {"aliasfix.filters": families, "aliasfix.formats": formats, "aliasfix.rules": rules}[group]()


def test_a_filter_of_a_name_that_is_taken(register: Callable[..., None]) -> None:
    register(page("filter").replace('("gauss",)', '("tri3",)'), "aliasfix.filters", "thirds:FAMILY")
    with pytest.raises(aliasfix.AliasfixError, match="uses the name 'tri3', which is taken"):
        aliasfix.convert(nn.MaxPool2d(2))


def test_a_format_of_a_suffix_that_is_taken(register: Callable[..., None]) -> None:
    register(page("format").replace('(".npz",)', '(".npz", ".pt")'), "aliasfix.formats", "thirds:FORMAT")
    result = CliRunner().invoke(app, ["inspect", "net.pth"])
    assert "uses the suffix '.pt', which is taken; uninstall the package" in result.stderr
    assert result.exit_code == 1


def test_the_names_that_pickles_hold_are_where_contributing_says() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Names that pickles hold")[2].partition("\n## ")[0]
    names = re.findall(r"`(aliasfix(?:\.\w+)*\.[A-Z]\w+)`", section)
    assert len(names) >= 7
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__module__ == module
