"""How much of a network's accuracy comes back after a conversion, stage by stage, and how steady it is.

    python benchmarks/recovery.py                  everything: writes results/recovery.json
    python benchmarks/recovery.py photographs      only EfficientNet-Lite0; the rest stays as it was measured
    python benchmarks/recovery.py photographs bin5 with one filter
    python benchmarks/recovery.py digits VGG       only some small networks
    python benchmarks/recovery.py methods          each method of calibration: writes results/recovery-methods.json

EfficientNet-Lite0 with its ImageNet weights on photographs: top-1 agreement with the original, each network's agreement
with itself after a diagonal shift, and consistency. Calibrated on one half of the photographs and tested on the other,
then the other way round, so that every photograph is tested on. Small networks on digits: accuracy, and consistency
over the circular shifts of 0 to 8 pixels; a seed trains one.
"""

import copy
import json
import sys
import time

import digits
import pictures
import torch
import training
from provenance import RESULTS, write
from rich.console import Console
from rich.table import Table

import aliasfix
from aliasfix.calibration.calibration import METHODS
from aliasfix.showcase import network

FILTERS, SEEDS, FOLDS = ("tri3", "bin5"), (0, 1, 2), (0, 1)
SHIFTS = (1, 2, 4, 8)
CALIBRATION_CROPS, TEST_CROPS = 25, 10  # of each photograph; there are ten in each half
CALIBRATION_DIGITS, CONSISTENCY_DIGITS = 256, 50


def raw(model, original, images):
    """The conversion alone."""


def calibrated(model, original, images):
    """`aliasfix.calibrate` on images without labels."""
    return aliasfix.calibrate(model, images, original).method


STAGES = {"raw": raw, "calibrated": calibrated}
"""What is done to the converted network, in place, one after the other: a function of it, the original and images."""


def stages(original, filter, images, measure, further):
    """What is measured after each stage, with the stage's seconds of processor time."""
    model, found = aliasfix.convert(original, filter), {}
    for name, stage in (STAGES | further).items():
        start = time.process_time()
        what = stage(model, original, images)
        seconds = round(time.process_time() - start, 1)
        found[name] = measure(model) | {"seconds": seconds} | ({"what": what} if what else {})
        print(f"  {filter} {name}: {found[name]}", flush=True)
    return found


def photographs(fold, filters):
    """Calibrate on one half of the photographs, test on the other."""
    original, for_calibration, images, test = halves(fold)
    random = torch.Generator().manual_seed(fold)
    pair = [torch.randint(pictures.MARGIN, (len(test), 2), generator=random) for _ in range(2)]
    known = {}

    def measure(model):
        here = classes(model, pictures.view(test, 8, 8))
        known.setdefault("original", here)
        ends = [classes(model, pictures.each_view(test, end)) for end in pair]
        moved = {f"self{d}": same(here, classes(model, pictures.view(test, 8 + d, 8 + d))) for d in SHIFTS}
        return {"agreement": same(here, known["original"]), "consistency": same(*ends)} | moved

    found = {"original": measure(original)}
    print(f"photographs, fold {fold}: {found}", flush=True)
    further = training.for_photographs(for_calibration, fold)
    return {"original": found["original"]} | {f: stages(original, f, images, measure, further) for f in filters}


def halves(fold):
    """The network, the photographs to calibrate on, images of them, and images of the others."""
    original = network().to(memory_format=torch.channels_last)
    for_calibration, for_test = pictures.halves(fold)
    images = pictures.varied(for_calibration, CALIBRATION_CROPS, fold)
    return original, for_calibration, images, pictures.crops(for_test, TEST_CROPS, 1000 + fold)


def classes(model, views):
    """The top-1 class of each image."""
    with torch.inference_mode():
        return torch.cat(
            [model(part.contiguous(memory_format=torch.channels_last)).argmax(1) for part in views.split(10)]
        )


def methods(fold):
    """The agreement that each method of calibration gives back to tri3."""
    original, _, images, test = halves(fold)
    seen, found = pictures.view(test, 8, 8), {}
    for method in METHODS:
        model = aliasfix.convert(original, "tri3")
        aliasfix.calibrate(model, images, original, method)
        found[method] = same(classes(model, seen), classes(original, seen))
        print(f"photographs, fold {fold}, {method}: {found[method]:.2f}", flush=True)
    return found


def small(name, seed):
    """One small network, trained with one seed."""
    original = digits.train(name, seed)
    (given, _), _ = digits.digits()
    images = digits.placed(given[:CALIBRATION_DIGITS], torch.Generator().manual_seed(seed))
    test, labels = digits.placed_test()

    def measure(model):
        model = copy.deepcopy(model).eval()
        accuracy = digits.accuracy(model, test, labels)
        return {"accuracy": accuracy, "consistency": digits.consistency(model, test[:CONSISTENCY_DIGITS])}

    first = measure(original)
    print(f"{name}, seed {seed}: {first}", flush=True)
    return {"original": first, "tri3": stages(original, "tri3", images, measure, training.for_digits())}


def same(a, b):
    return (a == b).float().mean().item()


def table(result):
    """Means over the seeds."""
    shown = Table(box=None)
    for column in ("network", "filter", "stage", "figures"):
        shown.add_column(column)
    for name, seeds in result.items():
        for filter in (key for key in seeds[0] if key != "original"):
            for stage in ("original", *seeds[0][filter]):
                runs = [seed[stage] if stage == "original" else seed[filter][stage] for seed in seeds]
                keys = [key for key, value in runs[0].items() if isinstance(value, float) and key != "seconds"]
                means = (f"{key} {100 * sum(run[key] for run in runs) / len(runs):.1f}" for key in keys)
                shown.add_row(name, filter, stage, ", ".join(means))
    return shown


def save(name, runs):
    """Put one network's runs into the results, and leave the others, and its runs with other filters."""
    path = RESULTS / "recovery.json"
    known = json.loads(path.read_text())["networks"] if path.exists() else {}
    runs = [before | run for before, run in zip(known.get(name, [{}] * len(runs)), runs, strict=True)]
    write("recovery", "python benchmarks/recovery.py", {"networks": known | {name: runs}})
    Console(width=150).print(table({name: runs}))


def main(what):
    if what[:1] in ([], ["photographs"]):
        save("EfficientNet-Lite0", [photographs(fold, what[1:] or FILTERS) for fold in FOLDS])
    if what[:1] in ([], ["methods"]):
        agreement = [methods(fold) for fold in FOLDS]
        write("recovery-methods", "python benchmarks/recovery.py methods", {"agreement": agreement})
    if what[:1] in ([], ["digits"]):
        for name in what[1:] or digits.NETWORKS:
            save(name, [small(name, seed) for seed in SEEDS])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
