"""Adaptive phase: exactly invariant to every integer shift where borders are circular and sizes divide."""

import copy
import io
import json
import math
import pickle
import threading
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import aliasfix
from aliasfix.checks.laws import redraw
from aliasfix.layers.ladder import Ladder
from aliasfix.layers.listeners import listeners
from aliasfix.layers.phase import AdaptiveBlur, filled, norms
from aliasfix.planning.rule import rules

from .nets import Net

SHIFTS = ((1, 0), (0, 1), (3, 5), (16, 9))


class Branches(nn.Module):
    """Lattices that are reached twice: by a shortcut, by 4 beside 2 and 2, and by 2 and 3 beside 3 and 2."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.twice = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.by_4 = nn.Conv2d(6, 6, 5, 4, 2)
        self.by_2_3 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, 3))
        self.by_3_2 = nn.Sequential(nn.Conv2d(6, 6, 5, 3, 2), nn.AvgPool2d(2))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        a = self.by_4(x) + self.twice(x)
        b = self.by_2_3(x) * self.by_3_2(x)
        return self.fc(F.relu(a).mean((2, 3)) + b.mean((2, 3)))


class UNet(nn.Module):
    """Every way up: nearest, bilinear, a transposed convolution, a pixel shuffle and an unpooling."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(4))
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.up = nn.ConvTranspose2d(4, 4, 4, 2, 1)
        self.shuffle = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.PixelShuffle(2))
        self.out = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        maps = [F.relu(self.inside(x))]
        for down in self.down:
            maps.append(F.relu(down(maps[-1])))
        pooled, indices = self.pool(maps[4])
        x = self.unpool(pooled, indices) + maps[4]
        x = F.interpolate(x, scale_factor=2) + maps[3]
        x = F.interpolate(x, size=maps[2].shape[-2:], mode="bilinear", align_corners=False) + maps[2]
        x = self.up(x) + maps[1]
        return self.out(self.shuffle(x) * maps[0])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def adaptive(model, x, **options):
    return aliasfix.convert(redraw(model).eval().to(x.dtype), method="aps", example_input=x, **options)


def change(model, x, equivariant=False):
    """The largest change over a few shifts, relative to the output's scale."""
    with torch.no_grad():
        y = model(x)
        worst = 0.0
        for shift in SHIFTS:
            moved = y.roll(shift, (2, 3)) if equivariant else y
            worst = max(worst, (model(x.roll(shift, (2, 3))) - moved).abs().max().item())
    return worst / y.abs().max().item()


def ladder_of(model, x):
    """The ladder of one pass."""
    seen = []
    layer = next(module for module in model.modules() if isinstance(module, AdaptiveBlur))
    handle = layer.register_forward_hook(lambda *_: seen.append(listeners()))
    with torch.no_grad():
        y = model(x)
    handle.remove()
    return next(mode for mode in seen[0] if isinstance(mode, Ladder)), y


@pytest.mark.filterwarnings("ignore::aliasfix.LatticeWarning")
@pytest.mark.parametrize("filter", ["delta1", "tri3", "bin4"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_no_integer_shift_changes_the_output(filter, dtype, bound):
    for net, shape in ((Branches(), (6, 3, 48, 72)), (Net(), (6, 3, 64, 96))):
        x = draw(*shape, dtype=dtype)
        model = adaptive(net, x, filter=filter)
        assert change(model, x) <= bound
        ladder, _ = ladder_of(model, x)
        for axis in (0, 1):
            coarsest = max(total for source, total in ladder.offsets if source == axis)
            assert len(set(ladder.offsets[axis, coarsest].tolist())) > 1


@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_every_norm_decides_exactly(norm):
    x = draw(3, 3, 48, 48)
    assert change(adaptive(Branches(), x, phase_norm=norm), x) <= 1e-12


@pytest.mark.parametrize("filter", ["delta1", "tri3"])
def test_what_samples_up_returns_to_the_phase_of_its_lattice(filter):
    x = draw(4, 3, 64, 96)
    model = adaptive(UNet(), x, filter=filter)
    assert change(model, x, equivariant=True) <= 1e-12


CASES = [
    pytest.param(case, id=f"{rule.name}-{case.name}")
    for rule in rules()
    for case in rule.cases
    if case.kept is None and rule.purpose == "sampling"
]


RESIZING = {  # windows that reach less far, or farther, than the map
    *("lp_pool-in_1d", "max_pool-dilated", "strided_conv-overlapping_stem"),
    *("average_pool-ceil_mode_padded", "average_pool-ceil_mode_not_counted", "max_pool-ceil_mode_last_window_dropped"),
}
RESHAPING = {"space_to_depth-swin_in_timm"}


@pytest.mark.parametrize("case", CASES)
def test_every_rule_is_equivariant_or_the_guarantee_says_why_not(case, request):
    name = request.node.callspec.id
    shape = (2, 24, 24, 4) if case.name == "four_of_one_map" else (*case.shape[:2], *(24 for _ in case.shape[2:]))
    x = draw(*shape)
    if case.name == "four_of_one_map":
        with pytest.warns(aliasfix.NoEffectWarning):
            adaptive(case.build(), x)
        return
    # the squares of root mean squares of windows that tile the map have the same sum, wherever the windows begin
    norm = 1.0 if name == "lp_pool-module" else 2.0
    given = aliasfix.guarantee(adaptive(case.build(), x, phase_norm=norm), x)
    assert given.agrees
    assert given.exact == (name not in RESIZING | RESHAPING)
    if name in RESIZING:
        assert "changes its size" in given.blockers[0].why


def test_with_delta1_it_is_the_circular_original_on_a_rolled_input():
    x, net = draw(5, 3, 48, 48), redraw(Branches()).eval().double()
    model = adaptive(net, x)
    circular = aliasfix.convert(net, "delta1", padding="circular", stem="whole", example_input=x)
    ladder, y = ladder_of(model, x)
    with torch.no_grad():
        for n in range(len(x)):
            starts = [[(t, o[n]) for (at, t), o in ladder.offsets.items() if at == axis] for axis in (0, 1)]
            first = [next(o for o in range(24) if all(o % t == begins for t, begins in each)) for each in starts]
            rolled = x[n : n + 1].roll((-first[0], -first[1]), (2, 3))
            torch.testing.assert_close(circular(rolled), y[n : n + 1], rtol=0, atol=1e-14)
            torch.testing.assert_close(model(rolled), y[n : n + 1], rtol=0, atol=1e-14)


def test_without_sharing_branches_disagree(monkeypatch):
    """The law sees it: every layer decides alone."""
    x = draw(4, 3, 48, 48)
    model = adaptive(Branches(), x)
    assert change(model, x) <= 1e-12
    monkeypatch.setattr(Ladder, "knows", lambda *_: False)
    monkeypatch.setattr(Ladder, "candidates", lambda self, source, fine, coarse, x: _free(fine, coarse, x))
    assert change(model, x) > 1e-2


def _free(fine, coarse, x):
    starts = int(fine) * torch.arange(round(coarse / fine)).expand(len(x), -1)
    return starts, torch.ones_like(starts, dtype=torch.bool)


def test_the_norms_of_the_components():
    x = draw(2, 3, 6, 4)
    found = norms(x, (3, 2), 2.0)
    for h in range(3):
        for w in range(2):
            torch.testing.assert_close(found[:, h, w], x[:, :, h::3, w::2].square().sum((1, 2, 3)))
    assert filled(x, (4, 4)).shape == (2, 3, 8, 4)


def test_only_what_decides_is_evaluated_densely():
    plan = aliasfix.inspect(timm.create_model("resnet18"), method="aps", example_input=torch.ones(1, 3, 64, 64))
    sampling = [step for step in plan if step.stride]
    assert [step.form for step in sampling] == ["dense", "dense"] + ["dense", "blur-first"] * 3


# -- the state of a pass


def test_copies_and_pickles_are_equal():
    x = draw(3, 3, 48, 48)
    model = adaptive(Branches(), x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    twin = copy.deepcopy(model)
    layers = [[m for m in each.modules() if isinstance(m, AdaptiveBlur)] for each in (model, twin)]
    assert len({id(layer.passes) for layer in layers[1]}) == 1
    assert layers[0][0].passes is not layers[1][0].passes


@pytest.mark.parametrize("file", ["net", "net.pth", "net.safetensors"])
def test_a_saved_model_is_the_same_and_has_its_guarantee(tmp_path, file):
    x = draw(2, 3, 64, 64, dtype=torch.float32)
    model = aliasfix.convert(timm.create_model("test_resnet").eval(), method="aps", example_input=x)
    aliasfix.save(model, tmp_path / file)
    loaded = aliasfix.load(tmp_path / file).eval()
    assert torch.equal(loaded(x), model(x))
    assert aliasfix.report(loaded).links == aliasfix.report(model).links != ()
    assert aliasfix.guarantee(loaded, x).exact
    assert aliasfix.verify(loaded, example_input=x).ok


@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # the weights are drawn
def test_calibration_is_at_fixed_phase_and_its_weights_load():
    x = draw(12, 3, 48, 48, dtype=torch.float32)
    net = redraw(Branches()).eval()
    model = aliasfix.convert(net, "tri3", phase="adaptive", example_input=x)
    with pytest.raises(aliasfix.AliasfixError, match="load its state_dict"):
        aliasfix.calibrate(model, x, net)
    fitted = aliasfix.convert(net, "tri3", example_input=x)
    aliasfix.calibrate(fitted, x, net, method="statistics")
    model.load_state_dict(fitted.state_dict())


def test_threads_have_passes_of_their_own():
    x = draw(8, 3, 48, 48)
    model = adaptive(Branches(), x)
    expected, found = model(x), {}

    def run(n):
        for _ in range(5):
            found[n] = model(x[n : n + 1])

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(8):
        torch.testing.assert_close(found[n], expected[n : n + 1])


class Checkpointed(nn.Module):
    """The way up, and a shortcut, follow phases that another part has decided on."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant, self.on = reentrant, False
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
        self.shortcut = nn.Conv2d(3, 4, 1, 4)
        self.up = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU())

    def part(self, function, *args):
        return checkpoint(function, *args, use_reentrant=self.reentrant) if self.on else function(*args)

    def forward(self, x):
        first = self.part(self.first, x)
        second = self.part(self.second, first) + self.part(self.shortcut, x)
        return self.part(self.up, second) + first


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_takes_the_same_phases(reentrant):
    x = draw(4, 3, 32, 32).requires_grad_()
    model = adaptive(Checkpointed(reentrant), x.detach())
    wanted = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    model.on = True
    model(x).square().sum().backward()
    for tensor, gradient in zip([x, *model.parameters()], wanted, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)


@pytest.mark.parametrize("reentrant", [False, True])
def test_several_passes_in_one_backward_pass_are_told_apart(reentrant):
    x = draw(4, 3, 32, 32).requires_grad_()
    model = adaptive(Checkpointed(reentrant), x.detach())
    both = [x, x.detach().roll((1, 1), (2, 3)).requires_grad_()]
    wanted = torch.autograd.grad(sum(model(each).square().sum() for each in both), both)
    model.on = True
    sum(model(each).square().sum() for each in both).backward()
    for each, gradient in zip(both, wanted, strict=True):
        torch.testing.assert_close(each.grad, gradient)


def test_backward_passes_of_threads_are_told_apart():
    x = draw(2, 3, 32, 32)
    model = adaptive(Checkpointed(False), x)
    inputs = [x[n : n + 1].roll((n, 3 * n), (2, 3)).requires_grad_() for n in (0, 1)]
    wanted = [torch.autograd.grad(model(each).square().sum(), each)[0] for each in inputs]
    model.on = True
    losses = [model(each).square().sum() for each in inputs]
    reached, gone_on = threading.Event(), threading.Event()

    def wait(gradient):  # the first pass has begun, and goes on once the second has
        reached.set()
        gone_on.wait(60)

    inside = [node for node, _ in losses[0].grad_fn.next_functions]
    inside[0].next_functions[0][0].register_hook(lambda *_: wait(None))
    thread = threading.Thread(target=losses[0].backward)
    thread.start()
    reached.wait(60)
    losses[1].backward()
    gone_on.set()
    thread.join()
    for each, gradient in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(each.grad, gradient)
    layers = [module for module in model.modules() if isinstance(module, AdaptiveBlur)]
    assert not layers[0].passes.backward


def test_gradients_flow_through_the_selected_component_only():
    x = draw(2, 3, 8, 8).requires_grad_()
    model = adaptive(nn.Sequential(nn.Conv2d(3, 3, 1, 2)), x.detach())
    model(x).sum().backward()
    assert ((x.grad != 0).sum((1, 2, 3)) == 3 * 16).all()


def test_a_part_alone_says_what_is_missing():
    x = draw(2, 3, 48, 48)
    model = adaptive(Branches(), x)
    with pytest.raises(aliasfix.AliasfixError, match="called on its own"):
        model.by_3_2(x.repeat(1, 2, 1, 1))
    x = draw(2, 3, 64, 64)
    net = adaptive(Net(), x)
    assert change(lambda x: net.forward_features(x).mean((2, 3)), x) <= 1e-12


def test_a_batch_of_other_images_is_refused():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.MaxPool2d(2), nn.MaxPool2d(2)

        def forward(self, x):
            return self.b(torch.cat([self.a(x)] * (2 if x.shape[0] > 1 else 1)))

    model = adaptive(Folded(), draw(1, 3, 16, 16))
    with pytest.raises(aliasfix.AliasfixError, match="6 images"):
        model(draw(3, 3, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = draw(4, 3, 48, 48, dtype=dtype)
    model = adaptive(Branches(), x)
    assert change(model, x) <= 2e-2
    with torch.autocast("cpu", torch.bfloat16):
        assert change(model.float(), x.float()) <= 2e-2


def test_channels_last():
    x = draw(4, 3, 48, 48)
    model = adaptive(Branches(), x)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("filter", ["delta1", "tri3"])
def test_it_compiles_in_one_graph_with_a_batch_of_different_phases(filter):
    x = draw(4, 3, 48, 48, dtype=torch.float32)
    model = adaptive(Branches(), x, filter=filter)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("filter", ["delta1", "tri3"])
def test_it_is_exported_with_a_batch_of_different_phases(filter):
    x = draw(4, 3, 48, 48, dtype=torch.float32)
    model = adaptive(Branches(), x, filter=filter)
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    program = torch.export.export(model, (x,), dynamic_shapes=(batch,), strict=False)
    file = io.BytesIO()
    torch.export.save(program, file)
    other = draw(7, 3, 48, 48, seed=1, dtype=torch.float32)
    torch.testing.assert_close(torch.export.load(io.BytesIO(file.getvalue())).module()(other), model(other))


# -- the guarantee


class Head(nn.Module):
    """Positions become features, as in VGG."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 8 * 8, 5)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).flatten(1))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.position = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 4, 8, 8))

    def forward(self, x):
        return F.relu(self.conv(x) + self.position).mean((2, 3))


def blockers(model, x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = aliasfix.guarantee(aliasfix.convert(redraw(model).eval(), example_input=x, **options), x)
    assert given.agrees
    return [(b.path, b.op, b.why, b.remedy) for b in given.blockers]


def test_blockers_have_a_path_an_operation_and_a_remedy():
    x = draw(2, 3, 16, 16, dtype=torch.float32)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert blockers(net, x, method="aps") == []
    path, op, why, remedy = blockers(nn.Sequential(*net[:2], nn.MaxPool2d(2), net[2]), x, method="aps", stem="keep")[0]
    assert (path, op, remedy) == ("0", "conv2d", "stem='whole'")
    assert "stem='keep'" in why
    border = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    assert blockers(border, x, method="aps", padding="zero")[0][::3] == ("0", "padding='circular'")
    assert blockers(Head(), x, method="aps")[0][1] == "flatten"
    larger, odd = draw(2, 3, 32, 32, dtype=torch.float32), draw(2, 3, 17, 16, dtype=torch.float32)
    assert "position to position" in blockers(Embedded(), larger, method="aps")[0][2]
    assert "is no multiple of the total stride 2" in blockers(net, odd, method="aps")[0][2]
    fixed = blockers(net, x, stem="whole", padding="circular")
    assert fixed[0][3] == "phase='adaptive'"


def test_nan_behind_a_shift_is_no_small_change():
    class Broken(nn.Module):
        def forward(self, x):
            out = F.max_pool2d(x, 2).mean((2, 3))
            return torch.where(x[:, :, 0, 0] < 0.4, torch.nan, out)

    x = draw(2, 1, 16, 16)
    given = aliasfix.guarantee(aliasfix.convert(Broken(), method="aps", example_input=x), x)
    assert math.isnan(given.change)


def test_options_that_exclude_each_other():
    for options, said in (({"average": "replace"}, "leave average out"), ({"filter": "ideal"}, "leave phase=")):
        with pytest.raises(aliasfix.AliasfixError, match=said):
            aliasfix.Recipe(phase="adaptive", **options)


def test_reasons_that_the_measurement_contradicts_are_said(monkeypatch):
    x = draw(4, 3, 48, 48)
    model = adaptive(Branches(), x)
    assert aliasfix.guarantee(model, x).exact
    monkeypatch.setattr(Ladder, "knows", lambda *_: False)
    monkeypatch.setattr(Ladder, "candidates", lambda self, source, fine, coarse, x: _free(fine, coarse, x))
    wrong = aliasfix.guarantee(model, x)
    assert not wrong.agrees
    assert "please report" in wrong.verdict


def test_a_guarantee_prints_and_goes_out_as_json():
    x = draw(2, 3, 16, 16, dtype=torch.float32)
    given = aliasfix.guarantee(adaptive(Head(), x), x)
    assert "do not commute with shifts" in str(given)
    assert json.loads(given.to_json())["blockers"][0]["op"] == "flatten"
    with pytest.raises(aliasfix.AliasfixError, match="convert it first"):
        aliasfix.guarantee(Head())


# -- architectures

EXACT = [
    *("resnet18", "resnet50", "resnet50d", "densenet121", "mobilenetv2_100", "mobilenetv3_small_100", "convnext_atto"),
    *("convnextv2_atto", "regnety_002", "regnetx_002", "hrnet_w18_small", "dla34", "ghostnet_100", "efficientnet_b0"),
    *("tf_efficientnet_lite0", "repvgg_a0", "resnext26ts", "seresnet18", "vovnet39a", "cspresnet50", "darknet53"),
    *("rexnet_100", "mnasnet_100", "fbnetc_100", "hardcorenas_a", "dpn68", "res2net50_26w_4s", "selecsls42"),
    *("xception41", "resnetaa50", "focalnet_tiny_srf"),
]
INEXACT = {
    "inception_v3": ("its size", 128),
    "deit_tiny_patch16_224": ("tokens", 224),
    "swin_tiny_patch4_window7_224": ("tokens", 224),
    "coatnet_0_rw_224": ("tokens", 224),
    "maxvit_nano_rw_256": ("tokens", 256),
    "pit_ti_224": ("its size", 224),
    "levit_128s": ("tokens", 224),
    "mobilevit_xs": ("tokens", 256),
    "vgg11_bn": ("windows", 224),
}


def settled(name, size):
    """A network with drawn weights, and with the statistics of images."""
    torch.manual_seed(0)
    model = redraw(timm.create_model(name))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(draw(4, 3, size, size, dtype=torch.float32))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("filter", ["delta1", "tri3"])
@pytest.mark.parametrize("name", EXACT)
def test_architectures_are_exact(name, filter):
    x = draw(3, 3, 64, 96)
    model = adaptive(settled(name, 64), x, filter=filter)
    assert change(model, x) <= 2e-12
    assert aliasfix.guarantee(model, x).exact
    ladder, _ = ladder_of(model, x)
    assert any(len(set(offsets.tolist())) > 1 for offsets in ladder.offsets.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", INEXACT)
def test_the_guarantee_names_what_cannot_be_exact(name):
    said, size = INEXACT[name]
    model = timm.create_model(name)
    x = draw(1, 3, size, size, dtype=torch.float32)
    found = blockers(model, x, method="aps")
    assert any(said in why for _, _, why, _ in found)
