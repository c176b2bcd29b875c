"""The Kaiser filter: against scipy's formulas and the package alias-free-torch."""

import numpy as np
import pytest
import scipy.signal
import torch

import aliasfix
from aliasfix.filters.kaiser import attenuation, design, taps


@pytest.mark.parametrize(("count", "cutoff", "half_width"), [(12, 0.25, 0.1036), (13, 0.25, 0.02), (24, 0.125, 0.05)])
def test_it_is_scipys_design(count, cutoff, half_width):
    expected = scipy.signal.firwin(count, cutoff, width=2 * half_width, fs=1)  # as StyleGAN3 calls it
    assert np.allclose(design(count, cutoff, attenuation(count, half_width)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [12, 13])
def test_it_is_the_filter_of_alias_free_torch(count):
    package = pytest.importorskip("alias_free_torch.filter")
    expected = package.kaiser_sinc_filter1d(0.25, 0.3, count).flatten()
    torch.testing.assert_close(torch.tensor(taps(count, 2)), expected, rtol=0, atol=1e-6)


def test_it_keeps_the_lattice_and_passes_what_is_below_the_new_nyquist_frequency():
    for stride in (2, 3, 4):
        row = aliasfix.filters.taps("kaiser", stride)
        assert len(row) == 6 * stride + 1
        response = np.abs(np.fft.rfft(row, n=600))  # a frequency for every 1/600 cycles per sample
        assert response[: int(600 * 0.25 / stride)].min() > 0.99
        assert response[int(600 * 0.8 / stride) :].max() < 0.01
