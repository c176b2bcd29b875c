import math

import pytest
import torch
from torch import nn

from aliasfix.measure import filter_variation


def with_weight(layer, weight):
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).expand_as(layer.weight))
    return layer


def test_by_hand():
    checkers = with_weight(nn.Conv2d(2, 3, 3), [[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    ramp = with_weight(nn.Conv2d(1, 1, (1, 3)), [[1.0, 2, 3]])
    flat = with_weight(nn.Conv3d(1, 1, 2), 5.0)
    zero = with_weight(nn.Conv1d(1, 1, 2), 0.0)
    found = filter_variation(nn.ModuleList([checkers, ramp, flat, zero]))
    assert found["0"] == pytest.approx(12 * 2 / 9)
    assert found["1"] == pytest.approx(2 / 6)
    assert found["2"] == 0
    assert math.isnan(found["3"])


def test_agrees_with_a_plain_loop_and_ignores_scale():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 4), nn.ConvTranspose2d(4, 2, (2, 3)))
    found = filter_variation(model)
    assert list(found) == ["0", "3"]
    for name, value in found.items():
        weight = model[int(name)].weight
        difference, size = 0.0, 0.0
        for kernel in weight.flatten(0, 1).tolist():
            for i, row in enumerate(kernel):
                for j, tap in enumerate(row):
                    size += abs(tap)
                    difference += abs(kernel[i + 1][j] - tap) if i + 1 < len(kernel) else 0
                    difference += abs(row[j + 1] - tap) if j + 1 < len(row) else 0
        assert value == pytest.approx(difference / size, abs=1e-6)
        with torch.no_grad():
            weight.mul_(-3)
    assert filter_variation(model) == pytest.approx(found)


def test_reaches_its_bound():
    spike = with_weight(nn.Conv2d(1, 1, 3), [[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert filter_variation(spike) == {"": 4.0}
