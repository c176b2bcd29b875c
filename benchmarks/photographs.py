"""EfficientNet-Lite0 on photographs: shift-consistency, and agreement with the original, for every filter.

python benchmarks/photographs.py          measures, writes results/photographs.json, draws docs/shift.png
python benchmarks/photographs.py --draw   draws the figure from the results
"""

import json
import sys

import matplotlib.pyplot as plt
import torch
from provenance import RESULTS, ROOT, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import aliasfix
from aliasfix.demo import (
    MARGIN,
    NEIGHBOURS,
    class_names,
    classify,
    consistent,
    crops,
    distance_between,
    features,
    images,
    moved,
    network,
)

FILTERS = ("rect2", "tri3", "bin4", "bin5")
PAIRS = 24


def measure():
    original, photographs, names = network(), list(images()), class_names()
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(MARGIN, (2 * PAIRS, 2), generator=generator) for _ in photographs]
    means, curves = {}, []
    for name in track(("original", *FILTERS), "filters", transient=True):
        model = original if name == "original" else aliasfix.convert(original, name)
        near = [features(model, crops(image, NEIGHBOURS)) for _, image in photographs]
        classes = [
            classify(model, features(model, crops(image, offsets))).argmax(1)
            for (_, image), offsets in zip(photographs, drawn, strict=True)
        ]
        if name == "original":
            reference = classes
        scale = distance_between([each[0] for each in near])
        means[name] = {
            "movement": mean(moved(each) / scale for each in near),
            "consistency": mean(consistent(each) for each in classes),
            "agreement": mean((a == b).float().mean().item() for a, b in zip(classes, reference, strict=True)),
            "confidence": mean(classify(model, each[:1]).max().item() for each in near),
        }
        if name in ("original", "tri3"):
            diagonal = torch.arange(MARGIN)[:, None].expand(-1, 2)
            for index, (photograph, image) in enumerate(photographs):
                each = features(model, crops(image, diagonal))
                chances = classify(model, each)
                if name == "original":
                    label = int(chances[MARGIN // 2].argmax())
                    curves.append({"photograph": photograph, "label": label, "class": names[label]})
                steps = [moved(each[i : i + 2]) / scale for i in range(MARGIN - 1)]
                curve = chances[:, curves[index]["label"]].tolist()
                curves[index][name] = {"movement": rounded(steps), "probability": rounded(curve)}
    return {"pairs": PAIRS, "means": means, "curves": curves}


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def rounded(values):
    return [round(value, 4) for value in values]


def table(means):
    result = Table(box=None)
    for column in ("filter", "features move", "consistency", "agreement", "confidence"):
        result.add_column(column, justify="left" if column == "filter" else "right")
    for model, figures in means.items():
        shares = [f"{figures[key]:.1%}" for key in ("movement", "consistency", "agreement")]
        result.add_row(model, *shares, f"{figures['confidence']:.2f}")
    return result


def draw(curves):
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(10, 6.4), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1.35, 1, 1))
    models = (("original", "#c44e52", "original"), ("tri3", "#4c72b0", "converted with tri3, not retrained"))
    wide = figure.add_subplot(grid[0, :])
    for model, colour, label in models:
        movement = [mean(step) for step in zip(*(curve[model]["movement"] for curve in curves), strict=True)]
        wide.plot([100 * m for m in movement], color=colour, label=label, linewidth=1.8)
    wide.set_ylim(0)
    wide.set_ylabel("% of the distance\nbetween two photographs")
    wide.set_title("how far the features move with each pixel of shift (mean of 8 photographs)", fontsize=10)
    figure.legend(*wide.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    for index, curve in enumerate(curves):
        axis = figure.add_subplot(grid[1 + index // 4, index % 4])
        for model, colour, _ in models:
            axis.plot(curve[model]["probability"], color=colour, linewidth=1.5)
        axis.set_title(f"{curve['photograph']}: “{curve['class']}”", fontsize=9)
        axis.set_ylim(0, 1)
        if index % 4:
            axis.set_yticklabels([])
        else:
            axis.set_ylabel("probability")
        if index < 4:
            axis.set_xticklabels([])
    figure.supxlabel("diagonal shift of the crop, pixels", fontsize=9)
    figure.savefig(ROOT / "docs" / "shift.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--draw" not in sys.argv:
        result = measure()
        Console().print(table(result["means"]))
        write("photographs", "python benchmarks/photographs.py", result)
    draw(json.loads((RESULTS / "photographs.json").read_text())["curves"])
