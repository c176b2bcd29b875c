"""What measuring costs beside the forward passes it needs: `python benchmarks/measure.py`.

Writes results/measure.json: the time of ImageNet-protocol consistency over that of its bare forward passes, which
is to be 1.1 or less, and the peak memory that 1024 circular shifts of 32 x 32 inputs take more than 64 of
them, beside what `sweep` says it keeps.
"""

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from provenance import write
from torch import nn
from torchvision.models import resnet18

from aliasfix.measure import crop_consistency, every, sweep

HERE = Path(__file__).parent
BATCH, PASSES, REPEATS = 16, 1, 5


def overhead(model: nn.Module) -> float:
    images = torch.randn(BATCH, 3, 256, 256)
    crops = images[..., :224, :224].contiguous()

    def bare() -> None:
        with torch.no_grad():
            for _ in range(2 * PASSES):
                model(crops)

    def measured() -> None:
        crop_consistency(model, images, passes=PASSES, batch_size=BATCH)

    bare()
    # interleaved, so that what else the machine does falls on both
    times = [(seconds(bare), seconds(measured)) for _ in range(REPEATS)]
    return statistics.median(b for _, b in times) / statistics.median(a for a, _ in times)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak(shifts: int) -> int:
    """Peak resident bytes of a process that sweeps `shifts` shifts."""
    script = f"import runpy; runpy.run_path({__file__!r})['grid']({shifts})"
    return int(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HERE).stdout
    )


def grid(shifts: int) -> None:
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    sweep(net, torch.randn(64, 3, 32, 32), every(32, 32)[:shifts], batch_size=64)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    torch.set_num_threads(1)
    few, many = peak(64), peak(1024)
    result = {
        "consistency_over_bare_forward": round(overhead(resnet18().eval()), 3),
        "grid_1024_over_64_shifts_bytes": many - few,
        "grid_peak_bytes": many,
        "kept_by_sweep_bytes": 12 * 64 * (1024 - 64),
    }
    print(result)
    write("measure", "python benchmarks/measure.py", result)
