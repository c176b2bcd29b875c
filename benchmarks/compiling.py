"""How long `torch.compile` takes for a converted network, against the original.

    python benchmarks/compiling.py [--runs 3]

Inductor compiles each network for a CPU, with its caches off and in one process, in turns. What counts is processor
time, its compiler's included: other programs delay that least. Images are 3x64x64; the functional net is that of
``tests/nets.py``. The last rows are a blur of 25 taps along each axis, as a layer alone, for fixed and for open sizes:
its original is one convolution of as many taps.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import timm
import torch
import torchvision
from torch import nn

import aliasfix

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "compiling.json"
sys.path.insert(0, str(ROOT))
TAPS = 25


def cases():
    """The name, the original and the converted network, and the input of each."""
    from tests.nets import Net

    x = torch.randn(4, 3, 64, 64)
    for name, model in (
        ("timm resnet18", timm.create_model("resnet18")),
        ("torchvision densenet121", torchvision.models.densenet121()),
        ("functional net", Net()),
    ):
        yield name, model, aliasfix.convert(model, example_input=x), x
    wide = nn.Conv2d(8, 8, TAPS, 2, TAPS // 2, groups=8)
    yield f"blur of {TAPS} taps", wide, aliasfix.BlurPool([1.0] * TAPS, (2, 2)), torch.randn(2, 8, 64, 64)


def seconds(model, x, mode):
    """Processor time of the first call of a compiled model."""
    torch._dynamo.reset()
    model.train(mode == "training")
    compiled = torch.compile(model, dynamic=True if mode == "open sizes" else None)
    before = os.times()
    if mode == "training":
        compiled(x).sum().backward()
    else:
        with torch.no_grad():
            compiled(x)
    return sum(os.times()[:4]) - sum(before[:4])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch._inductor.config.force_disable_caches = True
    torch._inductor.config.compile_threads = 1
    seconds(nn.Conv2d(3, 3, 3), torch.zeros(1, 3, 8, 8), "inference")  # loads the compiler
    rows = []
    for name, original, converted, x in cases():
        for mode in ("inference", "open sizes") if name.startswith("blur") else ("inference", "training"):
            taken = [[seconds(model, x, mode) for model in (original, converted)] for _ in range(options.runs)]
            before, after = (round(statistics.median(times), 1) for times in zip(*taken, strict=True))
            ratio = round(statistics.median(b / a for a, b in taken), 2)
            rows.append({"network": name, "mode": mode, "original_s": before, "converted_s": after, "ratio": ratio})
            print(json.dumps(rows[-1]), flush=True)
    machine = {"torch": torch.__version__, "cpu": platform.processor() or platform.machine(), "runs": options.runs}
    RESULT.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
