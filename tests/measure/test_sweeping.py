import pytest
import torch
from torch import nn

from aliasfix.comparison.cost import _Peak
from aliasfix.errors import AliasfixError
from aliasfix.measure import (
    accuracy_by_position,
    circular,
    crop,
    diagonal,
    every,
    grid,
    grid_consistency,
    heat_map,
    sweep,
    variation,
    withstands,
)


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_agrees_with_a_plain_loop(size, batch_size, aliased, photos, labels):
    shifts = [*grid(3, 1.5), (0.25, -2)]
    for given in (photos, [(photos, labels)]):
        found = sweep(aliased, given, shifts, size=size, batch_size=batch_size)
        for i, image in enumerate(photos):
            with torch.no_grad():
                p = [
                    aliased(circular(image, *d)[None] if size is None else crop(image, *d, size)[None])[0].softmax(0)
                    for d in [(0, 0), *shifts]
                ]
            target = int(p[0].argmax()) if given is photos else int(labels[i])
            top1 = [int(one.argmax()) for one in p[1:]]
            probability = torch.stack([one[target] for one in p[1:]])
            assert int(found.target[i]) == target
            assert found.top1[i].tolist() == top1
            assert torch.allclose(found.probability[i], probability, atol=1e-6)
            mean = sum(probability.tolist()) / len(shifts)
            deviation = (sum((one - mean) ** 2 for one in probability.tolist()) / len(shifts)) ** 0.5
            assert float(variation(found)[i]) == pytest.approx(deviation, abs=1e-6)
            assert bool(withstands(found)[i]) == all(one == target for one in top1)
        accuracy = [sum(int(found.top1[i, n] == found.target[i]) for i in range(4)) / 4 for n in range(len(shifts))]
        assert accuracy_by_position(found).tolist() == pytest.approx(accuracy)


def test_shift_invariant_network_varies_nowhere(invariant, photos):
    found = sweep(invariant, photos, grid(2))
    assert variation(found).max() < 1e-6
    assert accuracy_by_position(found).tolist() == [1] * 25
    assert withstands(found).all()
    assert grid_consistency(found).tolist() == [1] * 4


def test_stride_two_answers_by_parity():
    model = nn.Sequential(nn.MaxPool2d(1, 2), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
        model[2].bias.copy_(torch.tensor([-2.0, 2.0]))
    board = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2, 2)[None, None]  # seen as all ones or all zeros
    found = sweep(model, [(board, [0])], every(4, 4))
    even = heat_map(found.shifts, accuracy_by_position(found))
    assert even.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]] * 2
    assert even.diagonal().tolist() == [1] * 4
    # logits are ±(2, −2), so the probability is one of two values
    high, low = torch.tensor([2.0, -2.0]).softmax(0).tolist()
    assert float(variation(found)) == pytest.approx((high - low) / 2, abs=1e-6)
    assert grid_consistency(found).tolist() == [0.5]
    assert withstands(found).tolist() == [False]
    assert withstands(sweep(model, [(board, [0])], diagonal(4))).tolist() == [True]
    assert withstands(sweep(model, [(board, [1])], [(0, 1), (1, 0)])).tolist() == [True]


def test_worst_shift_may_lie_between_the_pixels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 1, 0], [0] * 4]) * 1.0)
        model[1].bias.copy_(torch.tensor([0.0, 0.1]))
    wave = torch.tensor([1.0, 0.0, 1.0, 0.0])[None, None, None]  # half a pixel on, it is flat: 0.5 everywhere
    assert withstands(sweep(model, [(wave, [0])], [(0, 0), (0, 2)])).tolist() == [True]
    half = sweep(model, [(wave, [0])], [(0, 0.5)])
    assert float(half.probability) == pytest.approx(float(torch.tensor([1.0, 0.1]).softmax(0)[0]), abs=1e-6)


@pytest.mark.parametrize("batch_size", [8, 100])
def test_full_grid_never_gives_the_model_more_than_a_batch(batch_size):
    sizes = []

    def model(images):
        sizes.append(len(images))
        return images.mean((2, 3))

    found = sweep(model, torch.randn(3, 3, 32, 32), every(32, 32), batch_size=batch_size)
    assert max(sizes) <= batch_size
    assert sum(sizes) == 3 * 1024 + 3  # and once unshifted, for the predicted class
    assert found.top1.shape == found.probability.shape == (3, 1024)
    kept = sum(tensor.nbytes for tensor in (found.top1, found.probability))
    assert kept == 12 * 3 * 1024


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_shifts():
    """As `sweep` says: a batch, as much shifted, what the model makes of it, and 12 bytes an image and shift."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    images = torch.randn(8, 3, 32, 32)

    def peak(shifts):
        with _Peak([images, *net.parameters()]) as found:
            sweep(net, images, shifts, batch_size=8)
        return found.most

    few, many = every(32, 32)[:64], every(32, 32)
    kept = 12 * len(images) * (len(many) - len(few))
    assert peak(many) - peak(few) <= kept
    # the batch, its shifted copy once more as it is joined, the convolution's output and its activation
    made = 3 * images.nbytes + 2 * 8 * 8 * 16 * 16 * 4
    assert peak(many) <= made + 12 * len(images) * len(many) + 10_000


def test_images_of_several_sizes():
    found = sweep(lambda x: x.mean((2, 3)), [torch.eye(4)[None], torch.ones(1, 6, 5)], every(2, 2))
    assert found.top1.shape == (2, 4)


def test_no_shifts_are_refused(invariant, photos):
    with pytest.raises(AliasfixError, match="there are no shifts"):
        sweep(invariant, photos, [])
