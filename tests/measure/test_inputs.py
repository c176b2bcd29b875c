import warnings

import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from aliasfix.errors import AliasfixError
from aliasfix.images.inputs import batches, load
from aliasfix.measure import ImageFolder, circular_consistency, crop_consistency, sweep

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("size", [1, 2, 5, 64])
@pytest.mark.parametrize(
    "given",
    [
        list(zip(IMAGES, LABELS, strict=True)),
        [(image, torch.tensor(label)) for image, label in zip(IMAGES, LABELS, strict=True)],
        [[IMAGES[:3], torch.tensor(LABELS[:3])], [IMAGES[3:], LABELS[3:]]],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, torch.tensor(LABELS)), batch_size=3),
    ],
)
def test_same_batches_whatever_holds_the_images(given, size):
    found = list(batches(given, size))
    assert torch.equal(torch.cat([batch.images for batch in found]), IMAGES)
    assert torch.cat([batch.labels for batch in found]).tolist() == LABELS
    assert [len(batch.images) for batch in found] == {1: [1] * 5, 2: [2, 2, 1], 5: [5], 64: [5]}[size]


def test_images_without_labels_of_several_sizes_keep_their_order():
    small = torch.zeros(3, 4, 4)
    found = list(batches([IMAGES[0], IMAGES[1], small, IMAGES[2]], 8))
    assert [tuple(batch.images.shape) for batch in found] == [(2, 3, 8, 8), (1, 3, 4, 4), (1, 3, 8, 8)]
    assert all(batch.labels is None for batch in found)
    assert torch.equal(next(iter(batches(IMAGES, 8))).images, IMAGES)


def test_masks_are_ignored_where_labels_are():
    (batch,) = batches([(IMAGES, torch.zeros(5, 8, 8)), (IMAGES[0], "mask", 3)], 8, labels=False)
    assert batch.labels is None
    assert len(batch.images) == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there are no images"),
        ([IMAGES[0], (IMAGES[0], 1)], "some images have a label and others none"),
        ([(IMAGES, [1, 2])], r"5 image\(s\) with 2 labels"),
        ([(IMAGES[0], torch.zeros(10))], r"1 image\(s\) with 10 labels"),
        ([(IMAGES[0], "cat")], "expected class indices beside the images, got .'cat'"),
        ([(IMAGES[0], 1, 2)], "expected class indices beside the images, got .1, 2."),
        (IMAGES[0, 0], r"got a tensor of shape \(8,\)"),
        ([{"image": IMAGES}], "got a dict"),
        ([(IMAGES[0] * 255).byte()], "images are torch.uint8: give floats"),
    ],
)
def test_what_is_no_image_is_refused(given, message):
    with pytest.raises(AliasfixError, match=message):
        list(batches(given, 4))


def test_batch_size_is_at_least_one():
    with pytest.raises(AliasfixError, match="batch_size must be 1 or more, not 0"):
        list(batches(IMAGES, 0))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 7], [-1, 0, 0, 0, 0]])
def test_labels_beyond_the_classes_are_refused(labels):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    for measure in (circular_consistency, lambda *given: sweep(*given, [(0, 0)])):
        with pytest.raises(
            AliasfixError, match=f"labels are {min(labels)} to {max(labels)} and the model has 7 classes"
        ):
            measure(model, [(IMAGES, labels)])


@pytest.fixture
def folder(tmp_path):
    for name, photo in {
        "cat/chelsea.png": skimage.data.chelsea(),
        "person/b/astronaut.JPG": skimage.data.astronaut(),
        "cat/a.jpeg": skimage.data.coffee()[:, :330],
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "loose.png").write_bytes(b"beside class folders, which torchvision ignores too")
    return tmp_path


@pytest.mark.parametrize(("resize", "size"), [(256, 256), (256, 224), (37, 30)])
def test_folder_reads_as_torchvision_does(folder, resize, size):
    reference = transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    found = list(ImageFolder(folder, resize=resize, size=size))
    names = ["cat/a.jpeg", "cat/chelsea.png", "person/b/astronaut.JPG"]
    assert [label for _, label in found] == [0, 0, 1]
    for (image, _), name in zip(found, names, strict=True):
        assert torch.allclose(image, reference(Image.open(folder / name)), atol=1e-6)


def test_flat_folder_has_no_labels(folder):
    found = list(ImageFolder(folder / "cat", size=8, resize=8))
    assert [image.shape for image in found] == [(3, 8, 8)] * 2


def test_unreadable_images_are_skipped_named_and_counted(folder):
    (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "chelsea.png").read_bytes()[:5000])
    (folder / "person" / "empty.jpg").touch()
    images = ImageFolder(folder, size=8, resize=8)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2 of 5 images in .* were skipped: cat/broken.png, person/empty.jpg"):
            assert [label for _, label in images] == [0, 0, 1]
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(AliasfixError, match=r"5 of 5 images in .* cannot be read"):
        list(images)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(AliasfixError, match="no image in"):
        ImageFolder(tmp_path)
    with pytest.raises(AliasfixError, match="is not a folder"):
        ImageFolder(tmp_path / "absent")
    with pytest.raises(AliasfixError, match="a crop of 300 does not fit images resized to 256: give resize=300"):
        ImageFolder(tmp_path, size=300)


def test_class_folders_must_be_the_models_classes(folder):
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # three classes
    with pytest.raises(
        AliasfixError, match=r"has 2 class folders, the model 3 classes: pass ImageFolder\(root, class_to_idx"
    ):
        circular_consistency(pool, folder)
    with pytest.raises(AliasfixError, match="class_to_idx has no index for the folders person"):
        ImageFolder(folder, class_to_idx={"cat": 2})
    mapped = ImageFolder(folder, size=32, resize=32, class_to_idx={"cat": 2, "person": 0})
    assert sweep(pool, mapped, [(0, 0)]).target.tolist() == [2, 2, 0]
    assert circular_consistency(pool, ImageFolder(folder, size=32, resize=32, labelled=False)).top1 is None


def test_path_is_read_at_the_size_of_the_metric(folder):
    seen = []

    def model(images):
        seen.append(tuple(images.shape[-2:]))
        return images.mean((2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crop_consistency(model, str(folder / "cat"), passes=1)
        sweep(model, folder / "cat", [(16, 16)], size=224)
        sweep(model, folder / "cat", [(0, 0)])
        crop_consistency(model, folder / "cat", size=288, passes=1)
    assert seen == [(224, 224)] * 6 + [(288, 288)] * 2
    # the centre 224 of 256, as ImageNet networks are evaluated
    (batch,) = batches(load(folder / "cat", 224), 8)
    wide = torch.stack(list(ImageFolder(folder / "cat")))
    assert torch.equal(batch.images, wide[..., 16:240, 16:240])
