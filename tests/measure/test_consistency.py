import pytest
import torch
from torch import nn

from aliasfix.errors import AliasfixError
from aliasfix.measure import circular_consistency, crop_consistency, every, grid_consistency, sweep


def loop(model, images, labels, view, high, passes, seed):
    """One image, one pair and one forward pass at a time."""
    random = torch.Generator().manual_seed(seed)
    agreement, change, top1, top5 = [], [], [], []
    for image, label in zip(images, labels, strict=True):
        dh, dw = (torch.randint(high, (passes, 2), generator=random).tolist() for _ in range(2))
        agreed, moved, first, five = 0, 0.0, 0, 0
        for n in range(passes):
            p = []
            for end in range(2):
                with torch.no_grad():
                    p.append(model(view(image, dh[n][end], dw[n][end])[None])[0].softmax(0))
                ranked = sorted(range(len(p[end])), key=lambda c: -p[end][c].item())
                first += ranked[0] == label
                five += label in ranked[:5]
            c = p[0].argmax()
            agreed += bool(p[1].argmax() == c)
            moved += abs(p[0][c].item() - p[1][c].item())
        agreement.append(agreed / passes)
        change.append(moved / passes)
        top1.append(first / passes / 2)
        top5.append(five / passes / 2)
    return agreement, change, top1, top5


def test_crops_agree_with_a_plain_loop(aliased, photos, labels):
    photos = photos[..., 3:]  # 40 x 37: 24 + 10 of them are used, off-centre by a rounded half
    found = crop_consistency(aliased, [(photos, labels)], size=24, margin=10, passes=4, seed=7)
    expected = loop(aliased, photos, labels, lambda x, dh, dw: x[:, 3 + dh : 27 + dh, 1 + dw : 25 + dw], 10, 4, 7)
    for own, other in zip((found.agreement, found.change, found.top1, found.top5), expected, strict=True):
        assert torch.allclose(own, torch.tensor(other), atol=1e-6)


def test_circular_agrees_with_a_plain_loop(aliased, photos, labels):
    found = circular_consistency(aliased, [(photos, labels)], passes=4, seed=7)
    expected = loop(aliased, photos, labels, lambda x, dh, dw: x.roll((dh, dw), (1, 2)), 40, 4, 7)
    for own, other in zip((found.agreement, found.change, found.top1, found.top5), expected, strict=True):
        assert torch.allclose(own, torch.tensor(other), atol=1e-6)
    assert 0 < found.agreement.mean() < 1
    assert 0 < found.top1.mean() < found.top5.mean() < 1
    assert found.change.max() > 0.01


def test_shift_invariant_network_is_wholly_consistent(invariant, photos):
    found = circular_consistency(invariant, photos)
    assert found.agreement.tolist() == [1] * 4
    assert found.change.max() < 1e-6
    assert found.top1 is found.top5 is None


def test_flat_image_is_wholly_consistent_under_crops(aliased):
    found = crop_consistency(aliased, torch.ones(2, 3, 256, 256), passes=2)
    assert found.agreement.tolist() == [1, 1]
    assert found.change.tolist() == [0, 0]


def test_crops_have_the_offsets_of_the_imagenet_protocol():
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    corners = []

    def model(images):
        assert images.shape[1:] == (2, 224, 224)
        assert torch.equal(images[:, :, 223, 223] - images[:, :, 0, 0], torch.full((len(images), 2), 223.0))
        corners.extend(images[:, :, 0, 0].tolist())
        return images.mean((2, 3))

    crop_consistency(model, torch.stack([rows, columns]).expand(40, 2, 256, 256), batch_size=20)
    assert {int(row) for row, _ in corners} == {int(column) for _, column in corners} == set(range(32))
    assert len(corners) == 2 * 5 * 40


def test_known_consistency_of_a_network_that_answers_with_the_position():
    model = nn.Flatten()  # of one pixel in 4: the class is where it is
    dot = torch.zeros(1, 1, 2, 2).index_fill(3, torch.tensor([0]), 1) * torch.tensor([[1.0], [0.5]])
    exact = grid_consistency(sweep(model, dot, every(2, 2)))
    assert exact.tolist() == [0.25]
    drawn = circular_consistency(model, dot.expand(200, 1, 2, 2), passes=20).agreement
    assert abs(drawn.mean() - 0.25) < 3 * (0.25 * 0.75 / 4000) ** 0.5
    # p(c) is e / (e + √e + 2) at its place, and what the softmax gives the other values elsewhere
    p = torch.tensor([1.0, 0.5, 0.0, 0.0]).softmax(0)
    change = circular_consistency(model, dot.expand(200, 1, 2, 2), passes=20).change
    assert abs(change.mean() - (p[0] - p).abs().mean()) < 0.01


def test_expectation_of_the_drawn_pairs_is_the_grids(aliased, photos):
    exact = grid_consistency(sweep(aliased, photos, every(40, 40), batch_size=256))
    by_hand = [sum(a == b for a in row for b in row) / 100 for row in sweep(aliased, photos, every(2, 5)).top1.tolist()]
    assert grid_consistency(sweep(aliased, photos, every(2, 5))).tolist() == pytest.approx(by_hand)
    drawn = circular_consistency(aliased, photos, passes=200, batch_size=256).agreement
    assert (drawn - exact).abs().max() < 4 * (0.25 / 200) ** 0.5


@pytest.mark.parametrize(
    "measure", [circular_consistency, lambda *a, **k: crop_consistency(*a, size=24, margin=9, **k)]
)
def test_seed_decides_and_batch_size_does_not(measure, aliased, photos):
    images = torch.cat([photos, photos.flip(3)])
    found = measure(aliased, images, seed=3)
    again = measure(aliased, images, seed=3, batch_size=3)
    other = measure(aliased, images, seed=4)
    assert torch.equal(found.agreement, again.agreement)
    assert torch.allclose(found.change, again.change, atol=1e-6)
    assert not torch.allclose(found.change, other.change, atol=1e-3)


def test_five_classes_are_all_among_the_five_best(photos):
    found = circular_consistency(lambda x: x.mean((2, 3)), [(photos, [0, 1, 2, 0])])
    assert found.top5.tolist() == [1] * 4


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("batch_size", [3, 5, 64])
def test_costs_the_forward_passes_of_the_pairs_and_no_more(labelled, batch_size, aliased, photos, labels):
    given = [(photos, labels)] if labelled else photos
    seen = []
    aliased.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    for measure, side in (
        (lambda: crop_consistency(aliased, given, size=24, margin=9, passes=4, batch_size=batch_size), 24),
        (lambda: circular_consistency(aliased, given, passes=4, batch_size=batch_size), 40),
    ):
        seen.clear()
        measure()
        assert len(seen) == 2 * 4 * -(-4 // batch_size)
        assert sum(shape[0] for shape in seen) == 2 * 4 * 4
        assert {shape[1:] for shape in seen} == {(3, side, side)}


def test_images_too_small_for_the_crops_are_refused(invariant):
    with pytest.raises(AliasfixError, match="an image of 256x255 has no 224 \\+ 32 pixels"):
        crop_consistency(invariant, torch.zeros(1, 3, 256, 255))
