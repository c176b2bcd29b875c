"""How far image-to-image networks are from shift-equivariance, before and after conversion.

    python benchmarks/equivariance.py        # writes benchmarks/results/equivariance.json

Every network is circular as a whole, so that a circular shift of the input has an exact answer, with weights drawn as
the laws ask. The distance is the root mean square of F(shift x) - shift F(x) over that of F(x), mean over 8 inputs and
both axes.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from pix2pix import UNetGenerator
from torch import nn

import aliasfix
from aliasfix.checks.laws import redraw

FILTERS = ("delta1", "rect2", "tri3", "bin4", "bin5")
RESULTS = Path(__file__).parent / "results" / "equivariance.json"


def _smp(decoder: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    model: nn.Module = getattr(smp, decoder)("resnet18", encoder_weights=None, classes=3)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pix2pix U-Net": UNetGenerator,
    "smp Unet, resnet18": lambda: _smp("Unet"),
    "smp Linknet, resnet18": lambda: _smp("Linknet"),
    "smp UnetPlusPlus, resnet18": lambda: _smp("UnetPlusPlus"),
}


def circular(model: nn.Module) -> nn.Module:
    """Wrap every convolution; what the recipe converts it wraps itself."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    return model


def distances(build: Callable[[], nn.Module], size: int = 64) -> dict[str, float]:
    """The distance from equivariance for each filter; ``delta1`` is the original."""
    torch.manual_seed(0)
    model = redraw(circular(build())).eval()
    found = {}
    for filter in FILTERS:
        converted = aliasfix.convert(model, filter, padding="circular", example_input=torch.rand(1, 3, size, size))
        total = 0.0
        for seed in range(8):
            x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                out = converted(x)
                for axis in (-1, -2):
                    moved = converted(torch.roll(x, 1, axis)) - torch.roll(out, 1, axis)
                    total += (moved.square().mean() / out.square().mean()).sqrt().item()
        found[filter] = total / 16
    return found


def main() -> None:
    found = {name: distances(build) for name, build in MODELS.items()}
    RESULTS.write_text(json.dumps({"torch": torch.__version__, "distances": found}, indent=1) + "\n")
    for name, row in found.items():
        print(f"{name:28s}", "  ".join(f"{filter} {value:.4f}" for filter, value in row.items()))


if __name__ == "__main__":
    main()
