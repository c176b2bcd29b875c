"""Nonlinearities without aliasing: the bound on the finer grid, its errors, and the layers of alias-free-torch."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aliasfix
from aliasfix.filters import kaiser
from aliasfix.layers import nonlinear
from aliasfix.layers.hermite import project
from aliasfix.layers.nonlinear import Filtered, Polynomial, Product, fewest
from aliasfix.layers.norm import AliasFreeNorm


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shifted(x, *by):
    """A periodic signal without its Nyquist frequencies, moved by fractions of a sample along its last axes."""
    for axis, amount in zip(range(-len(by), 0), by, strict=True):
        n = x.shape[axis]
        spectrum = torch.fft.fft(x, dim=axis)
        if n % 2 == 0:
            spectrum = spectrum.index_fill(axis, torch.tensor([n // 2]), 0)
        turn = torch.exp(-2j * torch.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) * amount / n)
        x = torch.fft.ifft(spectrum * turn.reshape(-1, *[1] * (-axis - 1)), dim=axis).real
    return x


def change(layer, function, x, *by):
    """How much more a shift changes than the place: the error of equivariance, in the spread of the output."""
    out = layer(function, x)
    return ((layer(function, shifted(x, *by)) - shifted(out, *by)).std() / out.std()).item()


@pytest.mark.parametrize("length", [15, 16, 31, 64])
def test_three_halves_of_the_samples_hold_a_square_and_less_do_not(monkeypatch, length):
    x = shifted(draw(2, 3, length), 0.0)
    layer = Product("ideal", (-1,))
    assert change(layer, torch.square, x, 0.37) < 1e-13
    assert fewest(length) <= 1.5 * length
    monkeypatch.setattr(nonlinear, "fewest", lambda n: fewest(n) - 1)  # one sample less
    assert change(layer, torch.square, x, 0.37) > 1e-3
    if length > 31:  # the Nyquist frequency of a few samples is a larger part of them
        monkeypatch.setattr(nonlinear, "fewest", lambda n: math.floor(1.4 * n))
    assert change(layer, torch.square, x, 0.37) > 1e-3


@pytest.mark.parametrize("spatial", [(24,), (12, 15), (6, 7, 8)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_a_polynomial_commutes_with_every_shift(spatial, dtype, bound):
    layer = Polynomial(tuple(range(-len(spatial), 0)), -len(spatial) - 1, 3, (0.1, 0.5, 0.3)).to(dtype)
    with torch.no_grad():
        layer.coefficients.copy_(draw(3, 3))
    x = shifted(draw(2, 3, *spatial), *(0.0 for _ in spatial))
    by = (0.37, 1.61, 0.5)[: len(spatial)]
    moved, still = layer(None, shifted(x, *by).to(dtype)).double(), layer(None, x.to(dtype)).double()
    assert ((moved - shifted(still, *by)).std() / still.std()).item() < bound


def test_a_filtered_relu_folds_less_with_more_samples():
    x = shifted(draw(4, 4, 64, 64), 0.0, 0.0)
    by = 0.37, 0.81
    errors = {factor: change(Filtered("ideal", (-2, -1), factor), torch.relu, x, *by) for factor in (2, 4, 8)}
    assert errors[2] > 2 * errors[4] > 4 * errors[8]
    assert change(lambda f, x: f(x), torch.relu, x, *by) > 2 * errors[2]


def test_filtered_on_channels_last_and_in_16_bits():
    x = draw(2, 6, 8, 10)
    layer = Filtered("ideal", (-2, -1))
    last = Filtered("ideal", (-3, -2))
    torch.testing.assert_close(last(F.gelu, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), layer(F.gelu, x))
    half = layer(F.gelu, x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, layer(F.gelu, x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize("filter", ["ideal", "kaiser"])
def test_constants_stay(filter):
    x = torch.full((1, 2, 7, 9), 0.7, dtype=torch.float64)
    within = {"ideal": 1e-12, "kaiser": 5e-3}[filter]  # the phases of Kaiser's taps have no equal sums
    layer = Filtered(filter, (-2, -1)).double()
    torch.testing.assert_close(layer(torch.sigmoid, x), torch.sigmoid(x), rtol=0, atol=within)


def test_it_is_the_activation_of_alias_free_torch():
    act = pytest.importorskip("alias_free_torch.act")
    theirs, ours = act.Activation1d(nn.SiLU()).double(), Filtered("kaiser", (-1,), padding="replicate").double()
    x = draw(2, 3, 41)
    torch.testing.assert_close(ours(F.silu, x), theirs(x), rtol=0, atol=1e-6)
    plane = Filtered("kaiser", (-2, -1), padding="replicate").double()
    up, down = act.UpSample1d().double(), act.DownSample1d().double()

    def along(layer, x):  # their filters of two axes are round; ours are separable
        rows = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mT
        return layer(rows.flatten(0, 1)).unflatten(0, x.shape[:2]).mT

    x = draw(2, 3, 17, 20)
    torch.testing.assert_close(plane(F.silu, x), along(down, F.silu(along(up, x))), rtol=0, atol=1e-6)


def test_a_norm_without_aliasing_commutes_with_every_shift():
    x = shifted(draw(2, 5, 8, 9), 0.0, 0.0)
    norm, weight, bias = AliasFreeNorm((-3, -2)), draw(5), draw(5, seed=1)

    def apply(x):
        return norm(x.permute(0, 2, 3, 1), (5,), weight, bias, 1e-6).permute(0, 3, 1, 2)

    torch.testing.assert_close(apply(shifted(x, 0.3, 1.7)), shifted(apply(x), 0.3, 1.7), rtol=0, atol=1e-12)
    plain = F.layer_norm(shifted(x, 0.3, 1.7).permute(0, 2, 3, 1), (5,), weight, bias).permute(0, 3, 1, 2)
    moved = shifted(F.layer_norm(x.permute(0, 2, 3, 1), (5,), weight, bias).permute(0, 3, 1, 2), 0.3, 1.7)
    assert (plain - moved).abs().max() > 1e-2
    torch.testing.assert_close(norm(x.movedim(1, -1)[:, :1, :1], (5,)), F.layer_norm(x.movedim(1, -1)[:, :1, :1], (5,)))


def test_projections():
    assert project(lambda x: 1 + 2 * x + 3 * x * x, 0.3, 2.0) == pytest.approx((1, 2, 3))
    z = 0.4 + 1.3 * draw(400_000)
    basis = torch.stack([z**0, z, z**2], 1)
    fitted = torch.linalg.lstsq(basis, F.gelu(z)[:, None]).solution.flatten()
    assert project(F.gelu, 0.4, 1.3) == pytest.approx(fitted.tolist(), abs=3e-3)


class Block(nn.Module):
    """One activation that runs twice, and a gate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act(self.second(self.act(self.first(x))))
        return x * torch.sigmoid(x) + x * x.mean((2, 3), keepdim=True)


def test_every_call_has_a_polynomial_of_its_own_in_the_state_dict():
    net, x = Block().eval(), draw(2, 4, 10, 12, dtype=torch.float32)
    model = aliasfix.convert(net, "ideal", activation="polynomial", padding="circular", example_input=x)
    added = {key: value.shape for key, value in model.state_dict().items() if key not in net.state_dict()}
    assert sorted(added.values()) == [(2, 4), (2, 4), (2, 6), (3, 4), (3, 4), (3, 6)]
    steps = [(step.op, step.placement.split(",")[0]) for step in aliasfix.report(model) if step.rule == "activation"]
    assert steps == [("relu", "polynomial"), ("relu", "polynomial"), ("sigmoid", "polynomial"), ("mul", "product")]
    model(x).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    twin = aliasfix.convert(Block().eval(), "ideal", activation="polynomial", padding="circular", example_input=x)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert torch.equal(aliasfix.revert(model)(x), net(x))


def test_a_saved_network_has_its_polynomials(tmp_path):
    net, x = Block().eval(), draw(2, 4, 10, 12, dtype=torch.float32)
    model = aliasfix.convert(net, "ideal", activation="polynomial", example_input=x)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("coefficients"):
                parameter.add_(0.1)
    aliasfix.save(model, tmp_path / "net.safetensors")
    assert torch.equal(aliasfix.load(tmp_path / "net.safetensors", Block().eval())(x), model(x))


def test_a_fit_bounds_a_network_on_other_images():
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())]
    net, x = nn.Sequential(*layers).eval(), draw(8, 6, 12, 12, dtype=torch.float32)
    for layer in net[::2]:
        nn.init.kaiming_normal_(layer.weight)
    model = aliasfix.convert(net, "ideal", activation="polynomial", example_input=x)
    assert not torch.isfinite(model(50 * x)).all()  # squares of squares
    fits = aliasfix.fit_polynomials(model, x)
    assert [fit.path for fit in fits] == [f"{n}.aliasfix_blur" for n in range(1, 24, 2)]
    assert max(fit.error for fit in fits) < 0.35
    assert (model(x) - net(x)).std() < 0.7 * net(x).std()
    assert model(50 * x).abs().max() < 100 * net(x).abs().max()


def test_a_fit_with_the_prior_alone_is_the_projection():
    net, x = (
        nn.Sequential(nn.Identity(), nn.GELU()).eval(),
        draw(8, 3, 12, 12) + torch.tensor([0.0, 1, -1])[:, None, None],
    )
    model = aliasfix.convert(net.double(), "ideal", activation="polynomial", example_input=x)
    aliasfix.fit_polynomials(model, x, prior=1.0, widen=1.0)
    for channel, row in enumerate(model[1].aliasfix_blur.coefficients.T.tolist()):
        values = x[:, channel]
        assert row == pytest.approx(project(F.gelu, values.mean().item(), values.std().item()), abs=1e-4)


def test_mistakes_in_a_fit():
    x = torch.ones(2, 3, 8, 8)
    with pytest.raises(aliasfix.AliasfixError, match="convert it with activation="):
        aliasfix.fit_polynomials(nn.ReLU(), x)
    model = aliasfix.convert(nn.Sequential(nn.ReLU()), activation="polynomial", example_input=x)
    with pytest.raises(aliasfix.AliasfixError, match="prior=0"):
        aliasfix.fit_polynomials(model, x, prior=0)
    with pytest.raises(aliasfix.AliasfixError, match="not finite"):
        aliasfix.fit_polynomials(model, x / 0)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["filtered", "polynomial"])
@pytest.mark.parametrize("filter", ["ideal", "kaiser"])
def test_it_compiles_exports_and_trains(activation, filter, tmp_path):
    net, x = Block().eval(), draw(2, 4, 10, 12, dtype=torch.float32)
    model = aliasfix.convert(net, filter, activation=activation, example_input=x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), rtol=1e-4, atol=1e-5)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last), model(x), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = model(x)
    torch.testing.assert_close(lower.float(), model(x), rtol=0.1, atol=0.1)
    with torch.no_grad():
        program = torch.export.export(model, (x,), strict=False)
        torch.testing.assert_close(program.module()(x), model(x))
    aliasfix.export(model, tmp_path / "net.onnx", example_input=x)
    model.train()(x).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero", "circular"])
def test_kaiser_by_matrices_is_kaiser_by_convolutions(monkeypatch, padding):
    layer, x = Filtered("kaiser", (-2, -1), padding=padding).double(), draw(2, 3, 5, 24)
    by_matrices = layer(torch.tanh, x)
    monkeypatch.setattr(nonlinear, "LONGEST", 0)
    layer.kernel = torch.tensor(kaiser.taps(12, 2), dtype=torch.float64)
    torch.testing.assert_close(layer(torch.tanh, x), by_matrices)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # nearly all noise has one class
def test_polynomials_are_distilled(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    x = draw(64, 3, 16, 16, dtype=torch.float32)
    model = aliasfix.convert(net, method="afc", example_input=x)
    aliasfix.fit_polynomials(model, x)
    before = (model(x) - net(x)).square().mean()
    images = torch.utils.data.DataLoader(list(x), 16)
    aliasfix.finetune(model, images, tmp_path, original=net, distillation=1.0, epochs=30, lr=1e-2)
    assert (model(x) - net(x)).square().mean() < 0.3 * before
