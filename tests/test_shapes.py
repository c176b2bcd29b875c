"""What a function returns on the meta device: the shape and dtype that it returns elsewhere, or PyTorch's refusal."""

import pytest
import torch
from torch.nn import functional as F

from aliasfix.tracing import shapes
from aliasfix.tracing.counter import MultiplyAdds

R = torch.rand
FITTING = {
    "batch_norm": (F.batch_norm, (R(2, 3, 4, 4), R(3), R(3))),
    "batch_norm of channels_last": (F.batch_norm, (R(2, 3, 4, 4).to(memory_format=torch.channels_last), R(3), R(3))),
    "batch_norm without statistics": (F.batch_norm, (R(2, 3, 4, 4), None, None, None, None, True)),
    "batch_norm of weights": (F.batch_norm, (R(1, 5, 12), None, None, R(5), None, True)),
    "conv1d": (F.conv1d, (R(2, 3, 9), R(5, 3, 4), R(5), 2, 1)),
    "conv2d": (F.conv2d, (R(2, 3, 9, 8), R(5, 3, 4, 3), None, (2, 3), (1, 0), 2)),
    "conv2d of groups": (F.conv2d, (R(2, 4, 9, 8), R(6, 2, 3, 3), None, 1, 1, 1, 2)),
    "conv2d of an image": (F.conv2d, (R(3, 9, 8), R(5, 3, 4, 3))),
    "conv2d, padded by name": (F.conv2d, (R(2, 3, 9, 8), R(5, 3, 3, 3), None, 1, "same")),
    "conv2d of one channel": (F.conv2d, (R(2, 1, 9, 8), R(5, 1, 3, 3))),
    "conv3d": (F.conv3d, (R(2, 3, 9, 8, 7), R(5, 3, 3, 2, 1), R(5), [2])),
    "layer_norm": (F.layer_norm, (R(2, 5, 3), (3,), R(3), R(3))),
    "layer_norm of a view": (F.layer_norm, (R(2, 3, 4, 5).permute(0, 2, 3, 1), (3,))),
    "layer_norm over two axes": (F.layer_norm, (R(2, 5, 3), [5, 3])),
    "gelu": (F.gelu, (R(2, 3).half(),)),
    "linear": (F.linear, (R(2, 5, 3), R(7, 3), R(7))),
    "linear of one row": (F.linear, (R(3), R(7, 3))),
    "linear of a vector": (F.linear, (R(2, 3), R(3))),
    "attention": (F.scaled_dot_product_attention, (R(2, 4, 5, 8), R(2, 4, 7, 8), R(2, 4, 7, 6))),
    "attention of one head": (F.scaled_dot_product_attention, (R(2, 1, 5, 8), R(2, 4, 7, 8), R(2, 4, 7, 8))),
}
MISFITTING = {
    "batch_norm": (F.batch_norm, (R(2, 4, 4, 4), R(3), R(3))),
    "batch_norm of one value": (F.batch_norm, (R(1, 3, 1, 1), R(3), R(3), None, None, True)),
    "conv1d of images": (F.conv1d, (R(2, 3, 9, 8), R(5, 3, 3, 3))),
    "layer_norm's bias": (F.layer_norm, (R(2, 5, 3), (3,), None, R(4))),
    "linear's bias": (F.linear, (R(2, 3), R(7, 3), R(4))),
    "batch_norm in evaluation": (F.batch_norm, (R(2, 4, 4, 4), None, None)),
    "conv2d": (F.conv2d, (R(2, 4, 9, 8), R(5, 3, 3, 3))),
    "conv2d of a small map": (F.conv2d, (R(2, 3, 2, 8), R(5, 3, 3, 3))),
    "layer_norm": (F.layer_norm, (R(2, 5, 4), (3,), R(3), R(3))),
    "layer_norm's weight": (F.layer_norm, (R(2, 5, 3), (3,), R(4))),
    "linear": (F.linear, (R(2, 5, 4), R(7, 3), R(7))),
    "attention": (F.scaled_dot_product_attention, (R(2, 4, 5, 8), R(2, 4, 7, 9), R(2, 4, 7, 6))),
}


def meta(args):
    return tuple(arg.to("meta") if isinstance(arg, torch.Tensor) else arg for arg in args)


@pytest.mark.parametrize(("func", "args"), FITTING.values(), ids=FITTING)
def test_the_result_is_like_the_real_one(func, args):
    real = func(*args)
    known = shapes.infer(func, meta(args), {})
    inferred = func(*meta(args)) if known is None else known.result
    assert (inferred.shape, inferred.dtype, inferred.stride()) == (real.shape, real.dtype, real.stride())
    assert inferred.is_meta
    with MultiplyAdds() as counter:
        func(*meta(args))
    assert known is None or known.multiply_adds == counter.total


@pytest.mark.parametrize(("func", "args"), MISFITTING.values(), ids=MISFITTING)
def test_what_does_not_fit_fails_as_it_does_without(func, args):
    with pytest.raises((RuntimeError, ValueError)):  # on real tensors: old versions of torch are laxer without data
        func(*args)
    assert shapes.infer(func, meta(args), {}) is None


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # is slow, says torch
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False, "proj_size": 2}]
)
def test_an_lstm(options):
    layer, x = torch.nn.LSTM(3, 4, **options), R(5, 2, 3)
    out, state = layer(x)
    inferred = shapes.infer(torch.lstm, _given_to_lstm(layer.to("meta"), x.to("meta")), {})
    assert [each.shape for each in inferred.result] == [each.shape for each in (out, *state)]
    assert inferred.result[0].stride() == out.stride()
    with MultiplyAdds() as counter:
        layer(x.to("meta"))
    assert inferred.multiply_adds == counter.total


def _given_to_lstm(layer, x):
    given = []

    class Listening(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.lstm:
                given.append(args)
            return func(*args, **(kwargs or {}))

    with Listening():
        layer(x)
    return given[0]


def test_inputs_by_name():
    given = {"weight": R(7, 3).to("meta"), "input": R(2, 3).to("meta")}
    assert shapes.infer(F.linear, (), given).result.shape == (2, 7)


def test_a_layout_is_for_pytorch_to_choose():
    image = R(2, 3, 9, 8).to("meta", memory_format=torch.channels_last)
    assert shapes.infer(F.conv2d, (image, R(5, 3, 3, 3).to("meta")), {}) is None
