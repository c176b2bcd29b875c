"""`aliasfix.calibrate`: what it changes, what it refuses, and what it leaves alone."""

import json
import warnings
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import aliasfix
from aliasfix import AliasfixError
from aliasfix.checks.laws import redraw

pytestmark = pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # of networks with random weights


def network(seed: int = 0) -> nn.Module:
    """BatchNorm, groups, a depthwise and a strided convolution and a pool; weights drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6()),
            *(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
        )
    redraw(model)
    return model.eval()


def plain(seed: int = 0) -> nn.Module:
    """No BatchNorm: biases, LayerNorm over the channels, a shared activation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        act = nn.GELU()
        return nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), act, nn.MaxPool2d(2), nn.Conv2d(16, 24, 3, 2, 1), act),
            *(nn.Conv2d(24, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.Flatten(2), nn.LayerNorm(16)),
            *(nn.Flatten(), nn.Linear(384, 32), act, nn.Linear(32, 10)),
        ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth fields with a little noise: (32, 3, 16, 16)."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(32, 3, 6, 6, generator=random)
    smooth = nn.functional.interpolate(coarse, (16, 16), mode="bicubic")
    return smooth + 0.1 * torch.randn(32, 3, 16, 16, generator=random)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def held(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def moments(model: nn.Module, images: Tensor, kind: tuple[type[nn.Module], ...]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each channel of what the layers of a kind return: mean and variance."""
    found = {}

    def see(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        out = type(module).forward(module, *args)
        channel = out.ndim - 1 if isinstance(module, nn.LayerNorm | nn.Linear) else 1
        axes = [axis for axis in range(out.ndim) if axis != channel]
        found[name] = out.mean(axes), out.var(axes, correction=0)

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
    handles = [module.register_forward_pre_hook(partial(see, name)) for name, module in layers]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


KINDS = {network: (nn.BatchNorm2d,), plain: (nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.Linear)}


@pytest.mark.parametrize("build", KINDS)
def test_every_channel_gets_the_mean_and_variance_of_the_original(build, images: Tensor) -> None:
    model = build()
    converted = aliasfix.convert(model, "bin5", example_input=images[:2])
    fit = images[[n for n in range(32) if n % 4 != 3]]
    wanted = moments(model, fit, KINDS[build])
    before = moments(converted, fit, KINDS[build])
    found = aliasfix.calibrate(converted, images, method="statistics")
    after = moments(converted, fit, KINDS[build])
    assert (found.method, found.images, found.held_out) == ("statistics", 24, 8)
    assert len(wanted) >= 4
    assert any((var / wanted[name][1] - 1).abs().max() > 0.05 for name, (_, var) in before.items())
    for name, (mean, var) in wanted.items():
        assert torch.allclose(after[name][0], mean, atol=1e-4), name
        assert torch.allclose(after[name][1], var, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("build", KINDS)
def test_least_squares_brings_the_layers_behind_the_blurs_nearer(build, images: Tensor) -> None:
    converted = aliasfix.convert(build(), "bin5", example_input=images[:2])
    found = aliasfix.calibrate(converted, images, method="least-squares")
    assert len(found.sites) >= 2
    assert all(site.after < site.before for site in found.sites)


def test_every_layer_fits_all_convolutions_and_brings_the_output_nearer(images: Tensor) -> None:
    converted = aliasfix.convert(network(), "bin5")
    before = held(converted)
    found = aliasfix.calibrate(converted, images, method="every-layer")
    changed = {key for key, value in held(converted).items() if not torch.equal(value, before[key])}
    named = dict(converted.named_modules())
    convolutions = {f"{path}.weight" for path, module in named.items() if isinstance(module, nn.Conv2d)}
    norms = {f"{path}.running_var" for path, module in named.items() if isinstance(module, nn.BatchNorm2d)}
    assert len(convolutions) > 2
    assert len(norms) > 2
    assert convolutions - {"0.weight"} <= changed
    assert "0.weight" not in changed  # before the first blur there is nothing to mend
    assert norms - {"1.running_var"} <= changed
    assert not {key for key in changed if key.startswith("15")}  # the linear layer
    assert len(found.sites) >= 2
    assert all(site.after < site.before for site in found.sites)


def test_auto_takes_the_best_of_the_methods(images: Tensor) -> None:
    found = aliasfix.calibrate(aliasfix.convert(network(), "bin5"), images)
    tried = {name: scores.rank for name, scores in found.scores.items() if name != "original"}
    assert list(tried) == ["before", "statistics", "least-squares", "both", "every-layer"]
    assert found.after.rank == max(tried.values())
    printed = str(found)
    assert f"{found.method} (taken)" in printed
    assert json.loads(found.to_json())["method"] == found.method


def test_auto_leaves_a_model_alone_that_no_method_makes_better(images: Tensor) -> None:
    converted = aliasfix.convert(network(), "delta1")  # is the original already
    before = held(converted)
    found = aliasfix.calibrate(converted, images)
    assert found.method == "none"
    assert same(held(converted), before)
    assert aliasfix.report(converted).calibration is None
    assert "left as it was" in str(found)
    aliasfix.revert(converted)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_images_on_which_nothing_can_be_learned_do_no_harm(scale: float, images: Tensor) -> None:
    converted = aliasfix.convert(network())
    found = aliasfix.calibrate(converted, images * scale)
    assert found.after.rank >= found.before.rank
    assert all(value.isfinite().all() for value in converted.state_dict().values())


def test_it_gives_the_same_twice_and_leaves_everything_but_weights_alone(images: Tensor) -> None:
    states = []
    for _ in range(2):
        model = aliasfix.convert(network())
        model[1].train()
        parameters, modes = list(model.parameters()), [module.training for module in model.modules()]
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        random = torch.random.get_rng_state()
        aliasfix.calibrate(model, images, network(), "both")
        assert torch.equal(random, torch.random.get_rng_state())
        assert [module.training for module in model.modules()] == modes
        assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        states.append(held(model))
    assert same(*states)
    assert states[0]["1.num_batches_tracked"] == 0


def test_the_original_is_what_the_calibration_goes_by_and_stays_as_it_is(images: Tensor) -> None:
    original = network()
    state = held(original)
    one, other = aliasfix.convert(original), aliasfix.convert(original)
    aliasfix.calibrate(one, images, method="both")
    aliasfix.calibrate(other, images, original, method="both")
    assert same(held(one), held(other))
    assert same(held(original), state)


def test_no_more_than_a_batch_is_in_a_network_at_a_time(images: Tensor) -> None:
    model, sizes = aliasfix.convert(network()), []
    model[0].register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    aliasfix.calibrate(model, images, network(), batch_size=5)
    assert max(sizes) == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_type(dtype: torch.dtype, images: Tensor) -> None:
    converted = aliasfix.convert(plain(), example_input=images[:2]).to(dtype)
    found = aliasfix.calibrate(converted, images, method="both")
    assert len(found.sites) >= 2
    assert all(site.after < site.before for site in found.sites)
    assert {p.dtype for p in converted.parameters()} == {dtype}


def test_a_layer_that_runs_twice_is_left_alone(images: Tensor) -> None:
    model = network()
    model.insert(4, model[1])  # a BatchNorm that two places share
    converted = aliasfix.convert(model, example_input=images[:2])
    before = held(converted)
    found = aliasfix.calibrate(converted, images, method="both")
    assert torch.equal(converted[1].running_var, before["1.running_var"])
    assert found.sites


@pytest.mark.slow
def test_a_timm_network(images: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_efficientnet", num_classes=10).eval()
    redraw(model)
    converted = aliasfix.convert(model)
    found = aliasfix.calibrate(converted, nn.functional.interpolate(images, 96), model, "statistics")
    assert found.after.error < found.before.error
    assert aliasfix.verify(converted).ok
    assert aliasfix.verify(converted, model).ok


def test_revert_of_a_calibrated_model_needs_the_originals_weights(images: Tensor) -> None:
    original = network()
    converted = aliasfix.convert(original)
    aliasfix.calibrate(converted, images, method="statistics")
    with pytest.raises(AliasfixError, match=r"calibrated .statistics., which changed its weights: load the original's"):
        aliasfix.revert(converted)
    with pytest.raises(AliasfixError, match="give original="):
        aliasfix.calibrate(converted, images)
    once = held(converted)
    aliasfix.calibrate(converted, images, original, "least-squares")
    converted.load_state_dict(once)
    with pytest.raises(AliasfixError, match="which changed its weights"):
        aliasfix.revert(converted)
    converted.load_state_dict(original.state_dict())
    assert torch.equal(aliasfix.revert(converted)(images), original(images))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "directory"])
def test_a_saved_model_says_that_it_was_calibrated(images: Tensor, tmp_path: Path, name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=10).eval()
    converted = aliasfix.convert(model)
    aliasfix.calibrate(converted, nn.functional.interpolate(images, 64), method="statistics")
    assert "calibrated by statistics" in str(aliasfix.report(converted))
    aliasfix.save(converted, tmp_path / name)
    again = aliasfix.load(tmp_path / name)
    assert aliasfix.report(again) == aliasfix.report(converted)
    assert same(held(again), held(converted))
    onto = aliasfix.load(tmp_path / name, aliasfix.convert(model))
    with pytest.raises(AliasfixError, match="calibrated"):
        aliasfix.revert(onto)
    assert aliasfix.verify(again).ok


def spoiled(images: Tensor, value: float) -> Tensor:
    spoiled = images.clone()
    spoiled[5, 1, 3, 3] = value
    return spoiled


MISTAKES = {
    "one image": (lambda images: images[:1], "1 images are too few to calibrate on: give 8 or more"),
    "no image": (lambda images: [], "there are no images"),
    "NaN": (lambda images: spoiled(images, torch.nan), "image 6 holds values that are not finite"),
    "infinite": (lambda images: spoiled(images, torch.inf), "image 6 holds values that are not finite"),
    "grey": (lambda images: images[:, :1], "does not run on images of 1x16x16"),
    "small": (lambda images: images[:, :, :1, :1], "does not run on images of 3x1x1"),
    "integers": (lambda images: images.byte(), "images are torch.uint8"),
    "generator": (lambda images: iter(images), "a generator"),
    "no folder": (lambda images: "nowhere", "nowhere is not a folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(name: str, images: Tensor) -> None:
    spoil, message = MISTAKES[name]
    converted = aliasfix.convert(network())
    before = held(converted)
    with pytest.raises(AliasfixError, match=message) as error:
        aliasfix.calibrate(converted, spoil(images))
    assert "\n" not in str(error.value)
    assert same(held(converted), before)
    assert aliasfix.report(converted).calibration is None


def test_mistakes_in_the_models(images: Tensor) -> None:
    model = network()
    with pytest.raises(AliasfixError, match="calibrate takes a converted model"):
        aliasfix.calibrate(model, images)
    converted = aliasfix.convert(model)
    with pytest.raises(AliasfixError, match="no method 'gradient': choose from auto, statistics"):
        aliasfix.calibrate(converted, images, method="gradient")
    with pytest.raises(AliasfixError, match="original= is a converted network"):
        aliasfix.calibrate(converted, images, converted)
    with pytest.raises(AliasfixError, match=r"original= is another network: .* is not alike"):
        aliasfix.calibrate(converted, images, plain())
    broken = aliasfix.convert(model)
    broken[4].weight.data[0] = torch.nan
    with pytest.raises(AliasfixError, match=r"NaN|not finite"):
        aliasfix.calibrate(broken, images)


def test_an_empty_folder_and_unreadable_files(tmp_path: Path) -> None:
    converted = aliasfix.convert(network())
    with pytest.raises(AliasfixError, match="no image in"):
        aliasfix.calibrate(converted, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(AliasfixError, match=r"1 of 1 images in .* cannot be read"):
        aliasfix.calibrate(converted, tmp_path)
    for number in range(8):
        Image.effect_noise((48, 40), 60).convert("RGB").save(tmp_path / f"{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = aliasfix.calibrate(converted, tmp_path, size=32)
    assert any("broken.png" in note for note in found.notes)


def test_an_interruption_restores_the_weights(images: Tensor) -> None:
    original = network()
    converted = aliasfix.convert(original)
    before = held(converted)
    passes = []

    def interrupt(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        passes.append(not same(held(converted), before))
        if passes[-1]:
            raise KeyboardInterrupt

    handle = converted[15].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        aliasfix.calibrate(converted, images)
    handle.remove()
    assert passes[-1]  # weights had been changed when it was interrupted
    assert same(held(converted), before)
    assert aliasfix.report(converted).calibration is None
    assert not any(module._forward_hooks for module in original.modules())
