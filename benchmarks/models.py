"""What a converted network costs against the original and against other people's anti-aliased versions of it.

python benchmarks/models.py [--device cuda] [--threads N] [--compile] [--seconds S] [NAME …]

All have the same weights and run in turns on the same input, 4x3x224x224. Without options and names it writes
results/models.json: one thread, forward in NCHW and channels_last, and a training step; with ``--threads`` or
``--compile`` results/models-….json. The limit of a network is the larger of two ratios, converted to original, from its
plan: multiply-adds, and bytes if every operation reads its inputs once and writes its output once. Memory is what
autograd keeps of a forward pass of 16 images in training.
"""

import argparse
import copy
import warnings

import antialiased_cnns
import timm
import torch
import torchvision
from provenance import write
from rich.console import Console
from rich.table import Table
from timing import interleaved, works

import aliasfix

NAMES = ("resnet18", "resnet50", "vgg11_bn", "densenet121", "mobilenet_v2", "alexnet")
TIMM = ("resnet18", "resnet50")
MEMORY = ("resnet34", "vgg16_bn")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def variants(name, device):
    """The networks by name, the weights of the first in all of them."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(name).to(device)
    found = {"original": original, "aliasfix": aliasfix.convert(original)}
    found["antialiased-cnns"] = with_weights(getattr(antialiased_cnns, name)(filter_size=3).to(device), original)
    if name in TIMM:
        plain = timm.create_model(name).to(device)
        found |= {"timm": plain, "aliasfix of timm": aliasfix.convert(plain)}
        found["timm aa_layer"] = timm.create_model(name, aa_layer=timm.layers.BlurPool2d).to(device)
        found["timm aa_layer"].load_state_dict(plain.state_dict())
    return found


def with_weights(peer, original):
    """The original's weights in order, the peer's own filters kept."""
    state = peer.state_dict()
    theirs = [key for key in state if not key.endswith("filt")]
    peer.load_state_dict(state | dict(zip(theirs, original.state_dict().values(), strict=True)))
    return peer


def forward(model, x):
    model.eval()

    def run():
        with torch.inference_mode():
            model(x)

    return run


def training_step(model, x):
    model.train()

    def run():
        model(x).square().mean().backward()
        model.zero_grad()

    return run


def saved_mib(model, x):
    """What autograd keeps of one forward pass in training, beside the weights: MiB, each storage once."""
    known = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    assert out.requires_grad
    return round(sum(kept.values()) / 2**20, 1)


def memory(name, device):
    """What training keeps of 16 images: the original, and what is converted."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(name).to(device)
    models = {"original": original, "aliasfix": aliasfix.convert(original)}
    models["antialiased-cnns"] = getattr(antialiased_cnns, name)(filter_size=3).to(device)
    x = torch.randn(16, 3, 224, 224, device=device)
    return {"model": name, "saved_mib": {key: saved_mib(model, x) for key, model in models.items()}}


def timed(models, x, make, options):
    """The times of all that run, and the reasons of those that do not."""
    runs = {name: make(model, x) for name, model in models.items()}
    fails = {name: reason for name, run in runs.items() if (reason := works(run)) is not None}
    able = {name: run for name, run in runs.items() if name not in fails}
    return interleaved(able, x.device, options.threads, options.seconds) | {
        name: {"fails": fails[name]} for name in fails
    }


def measure(name, options):
    device = torch.device(options.device)
    models = variants(name, device)
    cost = aliasfix.report(models["aliasfix"]).cost
    limits = {
        "multiply_adds": round(cost.ratio, 3),
        "bytes": round(cost.converted.traffic / cost.original.traffic, 3),
    }
    result = {"model": name, "limit": max(limits.values()), **limits, "settings": {}}
    for layout, memory_format in LAYOUTS.items():
        x = torch.randn(4, 3, 224, 224, device=device).to(memory_format=memory_format)
        here = {key: copy.deepcopy(model).to(memory_format=memory_format) for key, model in models.items()}
        if options.compile:
            torch._dynamo.reset()
            here = {key: torch.compile(model) for key, model in here.items() if key in ("original", "aliasfix")}
        result["settings"][f"forward, {layout}"] = timed(here, x, forward, options)
        if layout == "NCHW" and not options.compile:
            result["settings"]["training step, NCHW"] = timed(here, x, training_step, options)
    return result


def table(results):
    """Ratios to the original that each variant is of."""
    shown = Table("model", "setting", "limit", "against the original", box=None)
    for row in results:
        for setting, times in row["settings"].items():
            shown.add_row(row["model"], setting, f"{row['limit']:.2f}", ", ".join(ratios(times)))
    return shown


def ratios(times):
    for name, figures in times.items():
        base = times["timm" if "timm" in name else "original"]
        if name not in ("original", "timm"):
            yield f"{name} " + (f"{figures['ms'] / base['ms']:.2f}" if "ms" in figures else "fails")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=20, help="for each model and setting")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for name in options.names or NAMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(measure(name, options))
        Console(width=140).print(table(results[-1:]))
    if not options.names:
        parts = [options.device] * (options.device != "cpu") + [f"{options.threads}-threads"] * (options.threads > 1)
        label = "-".join(["models", *parts, *["compiled"] * options.compile])
        flags = f" --device {options.device}" * (options.device != "cpu") + f" --threads {options.threads}"
        command = "python benchmarks/models.py" + flags + " --compile" * options.compile
        kept = [] if options.compile else [memory(name, torch.device(options.device)) for name in MEMORY]
        write(label, command, {"input": [4, 3, 224, 224], "models": results, "memory": kept})


if __name__ == "__main__":
    main()
