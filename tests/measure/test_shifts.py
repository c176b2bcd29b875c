import math

import pytest
import torch

from aliasfix.errors import AliasfixError
from aliasfix.measure import circular, crop, diagonal, every, grid, heat_map


def interpolated(row: list[float], d: float) -> list[float]:
    """The trigonometric interpolant of a periodic row, at i − d, term by term."""
    n = len(row)
    found = []
    for i in range(n):
        value = 0.0
        for j, sample in enumerate(row):
            t = i - d - j
            for k in range(-((n - 1) // 2), (n - 1) // 2 + 1):
                value += sample * math.cos(2 * math.pi * k * t / n) / n
            if n % 2 == 0:  # at Nyquist only the part that lies on the samples
                value += sample * math.cos(math.pi * (i - j)) * math.cos(math.pi * d) / n
        found.append(value)
    return found


def test_whole_shift_moves_down_and_right_around_the_border():
    image = torch.arange(12.0).reshape(3, 4)
    moved = circular(image, 1, -1)
    assert all(moved[i, j] == image[(i - 1) % 3, (j + 1) % 4] for i in range(3) for j in range(4))


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("d", [0.5, -0.25, 1.3])
def test_fractional_shift_is_the_trigonometric_interpolant(size, d):
    image = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    across = torch.tensor([interpolated(row, d) for row in image.tolist()], dtype=torch.float64)
    assert torch.allclose(circular(image, 0, d), across, atol=1e-12)
    assert torch.allclose(circular(image.T, d, 0), across.T, atol=1e-12)
    both = torch.tensor([interpolated(row, 0.5) for row in across.T.tolist()], dtype=torch.float64).T
    assert torch.allclose(circular(image, 0.5, d), both, atol=1e-12)


def test_fractional_shift_tends_to_the_whole_one():
    image = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(circular(image, 2 + 1e-9, -1 - 1e-9), circular(image, 2, -1), atol=1e-7)


@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-3, 3), (0.5, 0), (-1.25, 2.5)])
def test_crop_shows_the_centre_of_the_shifted_image(shift):
    image = torch.randn(1, 3, 15, 16, generator=torch.Generator().manual_seed(0))
    # 15 - 8 leaves an odd margin, rounded towards the top
    assert torch.allclose(crop(image, *shift, 8), circular(image, *shift)[..., 3:11, 4:12], atol=1e-6)


@pytest.mark.parametrize("shift", [(5, 0), (-5, 0), (0, 5), (0, -5), (4.5, 0), (-4.5, 0)])
def test_crop_never_leaves_the_image(shift):
    with pytest.raises(AliasfixError, match="leaves the 16x16 image"):
        crop(torch.zeros(1, 16, 16), *shift, 8)


def test_crop_reaches_the_border():
    image = torch.arange(256.0).reshape(16, 16)
    assert crop(image, 4, 4, 8)[0, 0] == 0
    assert crop(image, -4, -4, 8)[-1, -1] == 255
    assert crop(image, -3.5, 3.5, 8).shape == (8, 8)


def test_grids():
    assert grid(2, 0.5)[0] == (-2, -2)
    assert len(grid(0.3, 0.1)) == 49
    assert grid(0) == [(0, 0)]
    assert set(grid(1)) == {(float(i), float(j)) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert len(every(3, 5)) == 15
    assert diagonal(3) == [(0, 0), (1, 1), (2, 2)]
    for bad in ((-1, 1), (1, 0)):
        with pytest.raises(AliasfixError, match="reach >= 0 and step > 0"):
            grid(*bad)


def test_heat_map_sorts_the_shifts_and_refuses_gaps():
    shifts = grid(1)[::-1]
    values = torch.tensor([10 * dh + dw for dh, dw in shifts])
    assert heat_map(shifts, values).tolist() == [[-11, -10, -9], [-1, 0, 1], [9, 10, 11]]
    for bad in (diagonal(2), [(0, 0), (0, 0)], [(0, 0), (0, 1), (1, 0), (1, 0)]):
        with pytest.raises(AliasfixError, match="do not fill a map"):
            heat_map(bad, torch.zeros(len(bad)))
