from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from aliasfix.errors import AliasfixError
from aliasfix.measure import (
    aliasing,
    circular_consistency,
    crop_consistency,
    feature_distance,
    label_agreement,
    output_variation,
    stability,
    sweep,
)

MEASURES = {
    "crop": lambda model, images, **more: crop_consistency(model, images, size=16, margin=8, passes=1, **more),
    "circular": lambda model, images, **more: circular_consistency(model, images, passes=1, **more),
    "sweep": lambda model, images, **more: sweep(model, images, [(0, 0), (0, 0.5)], **more),
}
MAPS = {"stability": stability, "labels": label_agreement, "total variation": output_variation}
HOOKED = {
    "features": lambda model, images: feature_distance(model, images, shifts=[(0, 1)]),
    "aliasing": aliasing,
}


class Wrapped(nn.Module):
    def __init__(self, model, wrap):
        super().__init__()
        self.model, self.wrap = model, wrap

    def forward(self, x):
        return self.wrap(self.model(x))


@pytest.mark.parametrize("name", MEASURES | HOOKED)
@pytest.mark.parametrize("fails", [False, True])
def test_model_and_random_state_are_as_before(name, fails, aliased, photos):
    aliased.train()
    aliased.norm.eval()  # frozen statistics in a network in training
    model = Wrapped(aliased, (lambda x: 1 / 0) if fails else (lambda x: x)).train()
    aliased.norm.eval()
    modes = {module: module.training for module in model.modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    strides = aliased.conv.stride, aliased.pool.stride
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    try:
        (MEASURES | HOOKED)[name](model, photos)
        assert not fails
    except ZeroDivisionError:
        assert fails
    assert {module: module.training for module in model.modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert (aliased.conv.stride, aliased.pool.stride) == strides
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", MEASURES | HOOKED)
def test_runs_in_eval_mode_without_gradients(name, aliased, photos):
    seen = []

    def look(x):
        seen.append((aliased.norm.training, x.requires_grad))
        return x

    (MEASURES | HOOKED)[name](Wrapped(aliased, look).train(), photos)
    assert set(seen) == {(False, False)}


def test_train_of_a_class_is_called_on_both_ways(photos):
    class Merging(nn.Module):
        def train(self, mode=True):
            self.merged = not mode
            return super().train(mode)

        def forward(self, x):
            assert self.merged
            return x.mean((2, 3))

    model = Merging().train()
    circular_consistency(model, photos)
    assert not model.merged


Pair = namedtuple("Pair", "logits aux")


@pytest.mark.parametrize(
    ("wrap", "output", "message"),
    [
        (lambda x: {"aux": None, "logits": x}, "logits", "a dict with 'aux', 'logits': pass output='logits'"),
        (lambda x: (x, None), 0, "a tuple of 2: pass output=0"),
        (lambda x: [None, x], 1, "a list of 2: pass output=0, or another index"),
        (lambda x: Pair(x, 0), "logits", "a Pair of 2: pass output=0"),
        (lambda x: [{"boxes": x}], lambda result: result[0]["boxes"], "a list: pass output= a function"),
        (lambda x: None, lambda result: torch.zeros(4, 2), "a NoneType: pass output= a function"),
    ],
)
def test_output_that_is_no_tensor_says_what_to_pass(wrap, output, message, invariant, photos):
    model = Wrapped(invariant, wrap)
    for measure in MEASURES.values():
        with pytest.raises(AliasfixError, match=message):
            measure(model, photos)
    if message.startswith("a NoneType"):
        return
    assert torch.equal(
        circular_consistency(model, photos, output=output).change,
        circular_consistency(invariant, photos).change,
    )


@pytest.mark.parametrize("name", MEASURES)
def test_maps_are_no_logits(name, photos):
    with pytest.raises(AliasfixError, match=r"returned \(\d+, 3, \d+, \d+\) where this metric needs logits"):
        MEASURES[name](nn.Identity(), photos)


@pytest.mark.parametrize("name", MAPS)
def test_logits_are_no_maps(name, invariant, photos):
    with pytest.raises(AliasfixError, match=r"returned \(4, 10\) where this metric needs maps"):
        MAPS[name](invariant, photos)


def test_output_must_keep_the_batch(invariant, photos):
    for wrap in (lambda x: x[:1], lambda x: x.mean()):
        with pytest.raises(AliasfixError, match=r"for a batch of 4 images"):
            circular_consistency(Wrapped(invariant, wrap), photos)


def test_nan_is_counted(invariant, photos):
    photos = photos.clone()
    photos[1:3, 0, 20, 20] = float("nan")
    for measure in MEASURES.values():
        with pytest.raises(AliasfixError, match="the model returned NaN for"):
            measure(invariant, photos)
    with pytest.raises(AliasfixError, match="NaN for 2 of 4 inputs"):
        circular_consistency(invariant, photos)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_images_follow_the_models_precision(dtype, aliased, photos):
    model = aliased.to(dtype)
    assert sweep(model, photos, [(0, 0.5)]).probability.dtype == torch.float32
    for measure in HOOKED.values():
        measure(model, photos[:2])


def test_any_callable_is_a_model(photos):
    assert circular_consistency(lambda x: x.mean((2, 3)), photos).agreement.tolist() == [1] * 4
