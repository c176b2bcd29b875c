"""A network's stages: each against the original on the same images, and one sentence that claims no more than shown."""

import dataclasses
import json
import re

import pytest
import torch
from torch import nn

import aliasfix
from aliasfix.comparison import compare, compare_stages, stages
from aliasfix.comparison.bootstrap import Estimate

SMALL = {"passes": 2, "diagonal": 4, "reach": 1, "feature_images": 2, "feature_shifts": 2}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten()).eval()  # fmt: skip
    return {"original": net, "converted": aliasfix.convert(net), "wider": aliasfix.convert(net, "bin5")}


@pytest.fixture(scope="module")
def found(networks):
    return compare_stages(networks, torch.randn(8, 3, 24, 24), size=20, margin=4, **SMALL)


def test_each_stage_is_measured_as_compare_measures_it(networks, found):
    images = torch.randn(8, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    names = list(networks)
    found = compare_stages(networks, images, size=20, margin=4, **SMALL)
    for one, name in zip(found.comparisons, names[1:], strict=True):
        alone = compare(
            networks["original"], networks[name], images, names=("original", name), size=20, margin=4, **SMALL
        )
        for measure in one.measures:
            assert measure == alone[measure.name]
    assert [len(one.measures) for one in found.comparisons] == [4, len(alone.measures)]


def test_the_table_has_a_row_for_each_stage(found):
    assert [row[0] for row in stages.rows(found)] == ["original", "converted", "wider"]
    assert stages.heads(found)[1:3] == ["says what the original says", "two shifts, one class"]
    assert json.loads(found.to_json())["verdict"] == found.verdict


def measured(name, a, b, difference):
    return stages.Measure(name, Estimate(*a), Estimate(*b), Estimate(*difference), images=8)


@pytest.mark.parametrize(
    ("consistency", "variation", "words"),
    [
        ((0.1, 0.05, 0.2), (-0.02, -0.03, -0.01), ["steadier", "steadier"]),
        ((0.1, -0.05, 0.2), (-0.02, -0.03, -0.01), ["no difference shown", "steadier"]),
        ((-0.1, -0.2, -0.05), (0.02, 0.01, 0.03), ["less steady", "less steady"]),
    ],
)
def test_the_sentence_claims_what_the_intervals_show(found, consistency, variation, words):
    measures = (
        measured("agreement", (1.0, 1.0, 1.0), (0.8, 0.7, 0.9), (-0.2, -0.3, -0.1)),
        measured("consistency", (0.7, 0.6, 0.8), (0.8, 0.7, 0.9), consistency),
        measured("variation", (0.05, 0.04, 0.06), (0.03, 0.02, 0.04), variation),
    )
    last = dataclasses.replace(found.last, measures=measures, doubt=None)
    verdict = stages.Stages((last,)).verdict
    assert "gives 80.0% [70.0%, 90.0%] of the views the original's top-1 class; two" in verdict
    assert "80.0% instead of 70.0% (" in verdict
    assert re.findall(r"points, (.*?)\)", verdict) == words


def test_one_network_is_refused(networks):
    with pytest.raises(aliasfix.AliasfixError, match="two networks or more"):
        compare_stages({"original": networks["original"]}, torch.randn(2, 3, 24, 24))
