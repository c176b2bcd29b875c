"""EfficientNet-Lite0 on photographs, as it is and with every filter: what `aliasfix demo` shows, measured at length.

python benchmarks/photographs.py          measures, writes results/photographs.json, draws docs/shift.png
python benchmarks/photographs.py --draw   draws the figure from the results
"""

import json
import sys

import matplotlib.pyplot as plt
import torch
from provenance import RESULTS, ROOT, write

from aliasfix import compare_filters, showcase
from aliasfix.measure.drawing import ONE, TWO

FILTERS, SHOWN = ("rect2", "tri3", "bin4", "bin5"), "tri3"
LENGTH = {"passes": 24, "diagonal": 32, "reach": 2, "feature_images": 8, "feature_shifts": 4, "batch_size": 4}


def measure():
    """The original, every filter, and one filter in every measure."""
    shown = showcase.photographs()
    found = compare_filters(shown.network, FILTERS, shown.images, detail=SHOWN, margin=showcase.MARGIN, **LENGTH)
    print(found)
    print(found.comparison)
    result = found.as_dict()
    for part in (result, result["comparison"]):
        del part["versions"]  # they are written beside the result
    return rounded(result)


def rounded(value):
    """Every number to four digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def draw(found):
    """How far features move at every sampling site, and what each photograph's class does."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(10, 6.4), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=(1.35, 1, 1))
    sides = (("a", ONE, "original"), ("b", TWO, f"converted with {SHOWN}, not retrained"))
    wide = figure.add_subplot(grid[0, :])
    layers = found["layers"]
    for number, (side, colour, label) in enumerate(sides):
        moves = [100 * sum(layer[side]) / len(layer[side]) / (2 * layer["red"]) for layer in layers]
        where = [place + 0.38 * (number - 0.5) for place in range(len(layers))]
        wide.bar(where, moves, width=0.36, color=colour, label=label)
    wide.set_xticks(range(len(layers)), [layer["layer"] for layer in layers], fontsize=8, rotation=12)
    wide.set_ylabel("% of the distance\nbetween two photographs")
    wide.set_title("how far the features move before and after each sampling site (mean of all shifts)", fontsize=10)
    figure.legend(*wide.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    for index, curve in enumerate(found["curves"]):
        axis = figure.add_subplot(grid[1 + index // 4, index % 4])
        for side, colour, _ in sides:
            axis.plot(curve["shifts"], curve[side], color=colour, linewidth=1.5)
        axis.set_title(f"{curve['image']}: “{curve['class']}”", fontsize=9)
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
        write("photographs", "python benchmarks/photographs.py", measure())
    draw(json.loads((RESULTS / "photographs.json").read_text())["comparison"])
