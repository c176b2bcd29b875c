"""The ideal low-pass: against scipy, at all sizes, in all the ways in which a layer is used."""

import itertools

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn

import aliasfix
from aliasfix.layers import BlurPool, IdealPool, IdealUpsample, spectral
from aliasfix.layers.spectral import Grid, resample


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def by_scipy(x, size, axis):
    """scipy's resampling of a signal without the frequencies from half the smaller size on."""
    spectrum = np.fft.rfft(x, axis=axis)
    np.moveaxis(spectrum, axis, -1)[..., (min(size, x.shape[axis]) - 1) // 2 + 1 :] = 0
    return scipy.signal.resample(np.fft.irfft(spectrum, x.shape[axis], axis=axis), size, axis=axis)


@pytest.mark.parametrize("spatial", [(16,), (17,), (1,), (600,), (601,), (8, 12), (9, 7), (4, 601), (5, 6, 7)])
def test_it_is_scipys_resample_without_nyquist(spatial):
    x = draw(2, 3, *spatial)
    expected = x.numpy()
    for axis in range(2, x.dim()):
        expected = by_scipy(expected, -(-x.shape[axis] // 2), axis)
    torch.testing.assert_close(IdealPool((2,) * len(spatial))(x), torch.from_numpy(expected), rtol=0, atol=1e-12)
    larger = x.numpy()
    for axis in range(2, x.dim()):
        larger = by_scipy(larger, 3 * x.shape[axis], axis)
        larger = np.roll(larger, 1, axis)  # the three samples of one lie around it
    torch.testing.assert_close(IdealUpsample((3,) * len(spatial))(x), torch.from_numpy(larger), rtol=0, atol=1e-12)


GRIDS = [(12, 0, 2, 5), (12, 1, 2, 5), (8, -1, 3, 3), (24, 0, 1, 5), (12, -0.25, 1 / 2, 2)]


@pytest.mark.parametrize("length", [6, 24, 25])
@pytest.mark.parametrize("grid", [*itertools.starmap(Grid, GRIDS), 36, 10])
def test_transforms_and_matrices_agree(monkeypatch, length, grid):
    grid = grid if isinstance(grid, Grid) else Grid.fill(length, grid)
    if grid.step < 1 and grid.size * grid.step != length:
        grid = Grid(2 * length, grid.start, grid.step, (length - 1) // 2)
    grid = Grid(grid.size, grid.start, grid.step, min(grid.highest, (length - 1) // 2))
    x = draw(2, 3, length, 2)
    by_matrix = resample(x, [grid, None])
    monkeypatch.setattr(spectral, "LONGEST", 1)
    torch.testing.assert_close(resample(x, [grid, None]), by_matrix, rtol=0, atol=1e-12)


def test_without_circular_padding_samples_stay_on_their_lattice():
    waves = torch.cos(2 * torch.pi * torch.arange(9, dtype=torch.float64) / 9 * 2)[None, None]
    torch.testing.assert_close(IdealPool((2,), padding="reflect")(waves), waves[..., ::2])
    torch.testing.assert_close(IdealPool((2,), padding="reflect")(waves, start=(1,), size=(4,)), waves[..., 1::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_32_bits(dtype):
    x = draw(2, 3, 40, 600, dtype=dtype)
    out = IdealPool((2, 2)).to(dtype)(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, IdealPool((2, 2))(x.float()).to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x.float()
        assert torch.equal(IdealPool((2, 2))(y), IdealPool((2, 2))(y.clone()))
        within = IdealPool((2, 2))(y)
    assert within.dtype == torch.float32
    assert torch.equal(within, IdealPool((2, 2))(y))


def test_memory_formats_any_batch_and_whole_numbers():
    x = draw(2, 3, 8, 10)
    last = IdealPool((2, 2))(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, IdealPool((2, 2))(x))
    torch.testing.assert_close(IdealPool((2, 2))(x[0]), IdealPool((2, 2))(x)[0])
    torch.testing.assert_close(IdealPool((2,), axes=(-2,))(x), IdealPool((2,))(x.mT).mT)
    assert IdealPool((2, 2))((10 * x).long()).dtype == torch.long


def test_gradients_and_the_adjoint():
    x = draw(1, 2, 7, 8).requires_grad_()
    pool = IdealPool((2, 2), padding="reflect")
    assert torch.autograd.gradcheck(pool, x)
    gradient = draw(1, 2, 4, 4)
    torch.testing.assert_close(pool.adjoint(gradient, x.shape), torch.autograd.grad(pool(x), x, gradient)[0])


@torch.no_grad()
def test_it_moves_less_than_the_widest_blur_at_every_site():
    torch.manual_seed(0)
    for op in (nn.Conv2d(4, 4, 3, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(3, 2, 1)):
        then = [nn.ReLU()] if isinstance(op, nn.Conv2d) else []  # in front of the filter
        net, x = nn.Sequential(op, *then).double(), draw(4, 4, 24, 24)
        changes = {}
        for filter in ("bin7", "ideal"):
            model = aliasfix.convert(net, filter, padding="circular", stem="full", example_input=x)
            moved, still = model(x.roll(1, -1)), model(x)
            changes[filter] = (moved - half_a_sample(still)).norm() / still.norm()
        assert changes["ideal"] < 1e-12 < changes["bin7"]


def half_a_sample(x):
    """``x`` without its Nyquist frequency, moved by half a sample to the right."""
    spectrum = torch.fft.rfft(x)
    turn = torch.exp(-1j * torch.pi * torch.arange(spectrum.shape[-1], dtype=x.dtype) / x.shape[-1])
    return torch.fft.irfft(spectrum * turn, n=x.shape[-1])


@pytest.mark.slow
@torch.no_grad()
def test_it_is_exported_for_a_fixed_size(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)).eval()
    model, x = aliasfix.convert(net, "ideal"), draw(1, 3, 9, 16, dtype=torch.float32)
    exported = torch.export.export(model, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), model(x))
    aliasfix.export(model, tmp_path / "net.onnx", example_input=x)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_in_one_graph():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)).eval()
    model, x = aliasfix.convert(net, "ideal"), draw(1, 3, 10, 12, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_layer_with_taps_says_which_layer_has_none():
    with pytest.raises(aliasfix.AliasfixError, match="has no taps"):
        BlurPool("ideal", (2,))
