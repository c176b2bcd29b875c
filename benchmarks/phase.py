"""What adaptive phase keeps of a trained network, how steady it is under camera shifts, and what it costs.

    python benchmarks/phase.py           everything: writes results/phase.json
    python benchmarks/phase.py time      only the times

EfficientNet-Lite0 with its ImageNet weights on the photographs and crops of ``recovery.py``: top-1 agreement with the
original, consistency of two random crops up to 31 pixels apart, and agreement with itself after a diagonal move of the
crop. All shifts are those of a camera: what leaves the picture on one side does not come in on the other. Two wrappers
around the untouched network stand beside the methods: they are exactly invariant to circular shifts, too, and cost next
to nothing.
"""

import functools
import json
import sys

import pictures
import timing
import timm
import torch
from provenance import RESULTS, write
from recovery import classes, halves, same
from torch import nn

import aliasfix
from aliasfix.layers.phase import rolled

FOLDS, SHIFTS = (0, 1), (1, 4)
NETWORKS = ("resnet18", "resnet50", "densenet121", "mobilenetv2_100")
APS = {"filter": "delta1", "phase": "adaptive"}
WAYS = {
    "raw tri3": {"filter": "tri3"},
    "adaptive phase, zero borders, stem kept": APS | {"padding": "zero", "stem": "keep"},
    "adaptive phase, zero borders": APS | {"padding": "zero", "stem": "whole"},
    "adaptive phase and tri3, zero borders, stem kept": APS | {"filter": "tri3", "padding": "zero", "stem": "keep"},
    "circular borders alone": {"filter": "delta1", "padding": "circular", "stem": "whole"},
    "aps (circular borders): exact": {"method": "aps"},
    "aps-3 (circular borders, tri3): exact": {"method": "aps-3"},
}


class RolledToBorder(nn.Module):
    """Rolls each image so that its strongest discontinuity lies on the border, then calls the network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        for dim in (2, 3):
            jumps = (x - x.roll(1, dim)).square().sum((1, 5 - dim))  # between each row or column and the one before
            first = [jumps.argmax(1)]
            x = rolled(x, [*first, 0] if dim == 2 else [0, *first])
        return self.network(x)


class RolledToPhase(nn.Module):
    """Rolls each image until its component at the period of the total stride has phase 0, then calls the network."""

    def __init__(self, network, period=32):
        super().__init__()
        self.network, self.period = network, period

    def forward(self, x):
        for dim in (2, 3):
            n = x.shape[dim]
            wave = torch.exp(-2j * torch.pi * torch.arange(n) / self.period)
            component = (x.mean(1).sum(4 - dim) * wave).sum(1)
            first = [(-component.angle() / (2 * torch.pi) * self.period).round().long() % self.period]
            x = rolled(x, [*first, 0] if dim == 2 else [0, *first])
        return self.network(x)


def photographs(fold):
    """Every network, tested on the half of the photographs that nothing was calibrated on."""
    original, _, images, test = halves(fold)
    random = torch.Generator().manual_seed(fold)
    pair = [torch.randint(pictures.MARGIN, (len(test), 2), generator=random) for _ in range(2)]
    reference = classes(original, pictures.view(test, 8, 8))

    def measure(name, model):
        here = classes(model, pictures.view(test, 8, 8))
        ends = [classes(model, pictures.each_view(test, end)) for end in pair]
        moved = {f"self{d}": same(here, classes(model, pictures.view(test, 8 + d, 8 + d))) for d in SHIFTS}
        found = {"agreement": same(here, reference), "consistency": same(*ends)} | moved
        print(f"fold {fold}, {name}: {found}", flush=True)
        return found

    found = {"original": measure("original", original)}
    found["input rolled to its border, network untouched: exact"] = measure("border", RolledToBorder(original).eval())
    found["input rolled to a phase, network untouched"] = measure("phase", RolledToPhase(original).eval())
    found |= {name: measure(name, aliasfix.convert(original, **options)) for name, options in WAYS.items()}
    fitted = aliasfix.convert(original, "tri3")
    aliasfix.calibrate(fitted, images, original)
    found["tri3, calibrated"] = measure("tri3, calibrated", fitted)
    adaptive = aliasfix.convert(original, "tri3", phase="adaptive")
    adaptive.load_state_dict(fitted.state_dict())
    found["tri3, calibrated, then adaptive phase"] = measure("tri3, calibrated, then adaptive", adaptive)
    return found


def times():
    """Milliseconds of networks with adaptive phase, of the same plan at fixed phase, and of the originals."""
    found = {}
    for name in NETWORKS:
        original, x = timm.create_model(name).eval(), torch.rand(4, 3, 224, 224)
        ways = {"original": original}
        for filter in ("delta1", "tri3"):
            options = {"filter": filter, "padding": "circular", "stem": "whole"}
            ways[f"{filter}, fixed"] = aliasfix.convert(original, **options)
            ways[f"{filter}, adaptive"] = aliasfix.convert(original, phase="adaptive", **options)
        with torch.inference_mode():
            runs = {way: functools.partial(model, x) for way, model in ways.items()}
            found[name] = timing.interleaved(runs, torch.device("cpu"), 1)
        print(name, {way: row["ms"] for way, row in found[name].items()}, flush=True)
    return found


def main(what):
    path = RESULTS / "phase.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    networks = known.get("networks") if what == ["time"] else [photographs(fold) for fold in FOLDS]
    write("phase", "python benchmarks/phase.py", {"networks": networks, "times": times()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
