"""How long a conversion takes, and how much memory, once the model is built; on one thread.

python benchmarks/conversion.py [NAME …]   measures and, without names, writes results/conversion.json
python benchmarks/conversion.py timm       converts every model of timm once, and writes results/conversion-timm.json

Time: the processor time, median of 3 conversions with ``inplace=True``, each of a fresh copy. Memory: how far the peak
of resident memory rises above where it was before; the same for ``inplace=False``, to show that the measure sees a
copy. All of timm is built on the meta device, where a conversion does the same.
"""

import copy
import ctypes
import gc
import statistics
import sys
import time
import warnings
from pathlib import Path

import timm
import torch
import torchvision
from provenance import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from zoo_models import entries

import aliasfix

TORCHVISION = (
    *("alexnet", "vgg16_bn", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "googlenet"),
    *("inception_v3", "shufflenet_v2_x1_0", "squeezenet1_1", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny"),
    "mnasnet1_0",
)
TIMM = (
    *("resnet50", "resnetv2_50", "resnet50d", "tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_large_100"),
    *("regnety_004", "convnext_tiny", "densenet121", "dla34", "legacy_senet154", "nf_resnet50", "repvgg_a0"),
    *("hrnet_w18_small", "ghostnet_100", "swin_tiny_patch4_window7_224"),
)
NAMES = (*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM))
MIB = 2**20


def build(name):
    family, _, base = name.partition(":")
    options = {"init_weights": True} if base in ("googlenet", "inception_v3") else {}
    return (torchvision.models.get_model if family == "torchvision" else timm.create_model)(base, **options).eval()


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def rise(convert, model):
    """How far a conversion raises the peak of resident memory, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    convert(model)
    return max(0, status("VmHWM") - before)


def measure(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build(name)
        seconds = []
        for _ in range(3):
            fresh = copy.deepcopy(model)
            start = time.process_time()
            aliasfix.convert(fresh, inplace=True)
            seconds.append(time.process_time() - start)
            del fresh
        copied = rise(aliasfix.convert, model)
        extra = rise(lambda own: aliasfix.convert(own, inplace=True), model)
    plan = aliasfix.report(model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return {
        "model": name,
        "converted": len(plan.converted),
        "kept": len(plan.kept),
        "seconds": round(statistics.median(seconds), 3),
        "weights_mib": round(weights / MIB, 1),
        "extra_mib": round(extra / MIB, 1),
        "extra_mib_of_a_copy": round(copied / MIB, 1),
    }


def table(models, median):
    result = Table(box=None, show_footer=True)
    result.add_column("model", "median")
    for column, footer in (
        ("converted", ""),
        ("kept", ""),
        ("seconds", f"{median['seconds']:.2f}"),
        ("weights, MiB", ""),
        ("in place, MiB", f"{median['extra_over_weights']:.0%} of the weights"),
        ("a copy, MiB", ""),
    ):
        result.add_column(column, footer, justify="right")
    for row in models:
        result.add_row(*map(str, row.values()))
    return result


def everything():
    """Write the processor seconds that each model of timm takes to convert."""
    seconds = {}
    warnings.simplefilter("ignore")
    for entry in track(entries("timm"), "timm"):
        with torch.device("meta"):
            model = entry.build().eval()
        gc.collect()
        start = time.process_time()
        aliasfix.convert(model, inplace=True)
        seconds[entry.name] = round(time.process_time() - start, 3)
    quantiles = statistics.quantiles(seconds.values(), n=20)
    found = {"median": round(statistics.median(seconds.values()), 3), "percentile_95": round(quantiles[-1], 3)}
    print(found)
    write("conversion-timm", "python benchmarks/conversion.py timm", found | {"seconds": seconds})


def main(names):
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: a freed tensor leaves the process, a new one shows
    aliasfix.convert(torch.nn.Sequential(torch.nn.MaxPool2d(2)))  # imports
    if names == ["timm"]:
        everything()
        return
    models = [measure(name) for name in track(names or NAMES, "models", transient=True)]
    median = {
        "seconds": round(statistics.median(row["seconds"] for row in models), 3),
        "extra_over_weights": round(statistics.median(row["extra_mib"] / row["weights_mib"] for row in models), 3),
    }
    Console(width=120).print(table(models, median))
    if not names:
        write("conversion", "python benchmarks/conversion.py", {"median": median, "models": models})


if __name__ == "__main__":
    main(sys.argv[1:])
