"""What the layers cost against other people's: blur pooling, and max and average pooling with a blur.

python benchmarks/layers.py [--device cuda] [--threads N] [--seconds S] [--only PART]

tri3 at stride 2 on 8x64x112x112, all in turns with one copy of the input, which is what the bytes alone cost: forward,
forward compiled, forward and backward, in NCHW and channels_last, in float32 and bfloat16. Peers that need the same
kernel size of the pool are put beside it. Without options it writes results/layers.json.
"""

import argparse
import functools
import warnings

import antialiased_cnns
import kornia
import timm
import torch
from models import LAYOUTS
from provenance import write
from rich.console import Console
from rich.table import Table
from timing import interleaved, works
from torch import nn

import aliasfix
from aliasfix.layers.blur import BlurPool

CHANNELS, SHAPE = 64, (8, 64, 112, 112)


def blurs():
    return {
        "aliasfix": BlurPool("tri3", (2, 2)),
        "antialiased-cnns": antialiased_cnns.BlurPool(CHANNELS, filt_size=3, stride=2),
        "timm": timm.layers.BlurPool2d(CHANNELS, filt_size=3, stride=2),
        "kornia": kornia.filters.BlurPool2D(3, stride=2),
    }


def pools(pool, kernel):
    dense, strided = (pool(kernel, stride, (kernel - 1) // 2) for stride in (1, 2))
    found = {
        "strided pool": strided,
        "aliasfix": aliasfix.convert(nn.Sequential(strided), example_input=torch.zeros(1, CHANNELS, 16, 16)),
        "antialiased-cnns": nn.Sequential(dense, blurs()["antialiased-cnns"]),
        "timm": nn.Sequential(dense, blurs()["timm"]),
    }
    same = pool is nn.MaxPool2d and kernel == 2
    return found | ({"kornia": kornia.filters.MaxBlurPool2D(3)} if same else {})


LAYERS = {
    "blur pool": blurs,
    "max pool 3, blur": lambda: pools(nn.MaxPool2d, 3),
    "max pool 2, blur": lambda: pools(nn.MaxPool2d, 2),
    "average pool 2, blur": lambda: pools(nn.AvgPool2d, 2),
}


def forward(layer, x):
    def run():
        with torch.no_grad():
            layer(x)

    return run


def compiled(layer, x):
    torch._dynamo.reset()
    run = forward(torch.compile(layer, fullgraph=True), x)
    run()
    return run


def backward(layer, x):
    def run():
        layer(x.detach().requires_grad_()).sum().backward()

    return run


MODES = {"forward": forward, "forward, compiled": compiled, "forward and backward": backward}


def measure(name, mode, layout, dtype, options):
    x = torch.randn(SHAPE, device=options.device).to(dtype).to(memory_format=LAYOUTS[layout])
    layers = {key: layer.to(x.device, dtype) for key, layer in LAYERS[name]().items()}
    layers = {key: layer for key, layer in layers.items() if works(functools.partial(layer, x)) is None}
    runs = {"copy of the input": x.clone} | {key: MODES[mode](layer, x) for key, layer in layers.items()}
    times = interleaved(runs, x.device, options.threads, options.seconds)
    row = {"layer": name, "mode": mode, "layout": layout, "dtype": str(dtype).removeprefix("torch."), "times": times}
    if options.device != "cpu":
        moved = x.numel() * x.element_size()
        row["copy_gb_per_s"] = round(2 * moved / times["copy of the input"]["ms"] / 1e6)
        row["aliasfix_gb_per_s"] = round(1.25 * moved / times["aliasfix"]["ms"] / 1e6)
    return row


def table(rows):
    shown = Table("layer", "mode", "layout", "type", "milliseconds", box=None)
    for row in rows:
        times = ", ".join(f"{name} {figures['ms']:.2f}" for name, figures in row["times"].items())
        shown.add_row(row["layer"], row["mode"], row["layout"], row["dtype"], times)
    return shown


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8, help="for each layer, mode, layout and type")
    parser.add_argument("--only", help="a part of the layer's or the mode's name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    cases = [
        (name, mode, layout, dtype)
        for name in LAYERS
        for mode in MODES
        for layout in LAYOUTS
        for dtype in (torch.float32, torch.bfloat16)
        if (options.only or "") in f"{name} {mode}" and not (dtype == torch.bfloat16 and "compiled" in mode)
    ]
    rows = []
    for case in cases:
        rows.append(measure(*case, options))
        Console(width=150).print(table(rows[-1:]))
    if not options.only:
        parts = [options.device] * (options.device != "cpu") + [f"{options.threads}-threads"] * (options.threads > 1)
        flags = f" --device {options.device}" * (options.device != "cpu") + f" --threads {options.threads}"
        write("-".join(["layers", *parts]), "python benchmarks/layers.py" + flags, {"input": SHAPE, "rows": rows})


if __name__ == "__main__":
    main()
