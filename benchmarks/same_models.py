"""Forty models of many families, how each is converted, and what it then returns."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import aliasfix

VALUES = 4096  # of each output, the first ones


@dataclass(frozen=True)
class Case:
    """A model, named as ``LIBRARY:NAME``, and the conversion; ``trains``: a step of training is run, too."""

    base: str
    filter: str = "tri3"
    options: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, ...] = (96, 96)
    args: dict[str, Any] = field(default_factory=dict)
    trains: bool = False

    @property
    def name(self) -> str:
        return " ".join((self.base, self.filter, *(f"{key}={value}" for key, value in self.options.items())))


class Block(nn.Module):
    """A strided branch and a functional average for the shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True) + F.avg_pool2d(x, 3, 2, padding=1)


class Functional(nn.Module):
    """Functions that sample, called by the root and by a child; an activation and a pool that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, 2, 1)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.block = Block(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.stem(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        x = self.act(self.norm2(self.conv(x)))
        x = self.pool(self.block(self.pool(x)))
        return self.fc(x.mean((2, 3)))


class Resampling(nn.Module):
    """Operations that few networks have: unpooling, shuffles, slices, power averages, nearest neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.power = nn.LPPool2d(2, 3, 2)
        self.merge = nn.Conv2d(32, 16, 1)
        self.up = nn.ConvTranspose2d(4, 8, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        x = x + F.max_unpool2d(pooled, places, 2)
        x = self.merge(F.pixel_unshuffle(self.power(F.pad(x, (1, 0, 1, 0))), 2)).relu()
        x = F.pixel_shuffle(x + F.interpolate(x[..., ::2, ::2], scale_factor=2.0), 2)
        return F.unfold(self.up(x), 4, stride=4)


def one_axis() -> nn.Module:
    """A 1-D network."""
    return nn.Sequential(
        *(nn.Conv1d(3, 8, 7, 2, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1)),
        *(nn.Conv1d(8, 16, 3, 2, 1, groups=2), nn.BatchNorm1d(16), nn.SiLU(), nn.AvgPool1d(2), nn.LPPool1d(2, 2)),
        *(nn.ConvTranspose1d(16, 8, 4, 2, 1), nn.Upsample(scale_factor=2), nn.Conv1d(8, 4, 3, padding=1)),
    )


def three_axes() -> nn.Module:
    """A 3-D network."""
    return nn.Sequential(
        *(nn.Conv3d(3, 8, 3, 1, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 8, 3, (1, 2, 2), 1)),
        *(nn.BatchNorm3d(8), nn.ReLU(), nn.AvgPool3d(2), nn.ConvTranspose3d(8, 4, 2, 2), nn.Conv3d(4, 2, 1)),
    )


OWN: dict[str, Callable[[], nn.Module]] = {
    "functional": Functional,
    "resampling": Resampling,
    "one_axis": one_axis,
    "three_axes": three_axes,
}
_FULL, _CIRCULAR, _REPLACE, _BUDGET = {"stem": "full"}, {"padding": "circular"}, {"average": "replace"}, {"budget": 1.1}
_PATCHES = {"include": ("patch_embed.proj",)}
_QUICK = {"init_weights": False}  # they take seconds to draw, and are drawn here
CASES = (
    Case("own:functional", trains=True),
    Case("own:resampling", options=_REPLACE),
    Case("own:one_axis", "bin5", _FULL, (128,), trains=True),
    Case("own:three_axes", "rect2", size=(16, 32, 32)),
    Case("torchvision:alexnet", size=(128, 128)),
    Case("torchvision:vgg11_bn", "rect2", size=(64, 64), args=_QUICK),
    Case("torchvision:resnet18", trains=True),
    Case("torchvision:resnet50", "bin5", _CIRCULAR),
    Case("torchvision:densenet121", options=_REPLACE),
    Case("torchvision:mobilenet_v2", "rect2", _FULL, trains=True),
    Case("torchvision:mobilenet_v3_small", "bin5"),
    Case("torchvision:googlenet", size=(128, 128), args=_QUICK, trains=True),
    Case("torchvision:inception_v3", size=(160, 160), args=_QUICK),
    Case("torchvision:shufflenet_v2_x0_5", trains=True),
    Case("torchvision:squeezenet1_1", "rect2", size=(97, 130)),
    Case("torchvision:efficientnet_b0", options=_BUDGET),
    Case("torchvision:regnet_y_400mf", "bin5"),
    Case("torchvision:convnext_tiny", options=_FULL, size=(64, 64)),
    Case("torchvision:mnasnet0_5", options=_CIRCULAR),
    Case("torchvision:swin_t", size=(64, 64)),
    Case("timm:resnet26d", options=_REPLACE, trains=True),
    Case("timm:resnetv2_50", options={"padding": "zero"}),
    Case("timm:res2net50_26w_4s", "bin5"),
    Case("timm:repvgg_a0"),
    Case("timm:hrnet_w18_small", "rect2"),
    Case("timm:dla34", options=_CIRCULAR),
    Case("timm:eca_nfnet_l0", options={"padding": "replicate"}),
    Case("timm:ghostnet_050", "bin5", _FULL),
    Case("timm:tf_efficientnet_lite0", size=(101, 120), trains=True),
    Case("timm:mobilenetv3_small_050", "rect2", _BUDGET, trains=True),
    Case("timm:regnetx_002", options={"memory_budget": 1.1}),
    Case("timm:convnext_atto", "bin5", size=(64, 64)),
    Case("timm:swin_tiny_patch4_window7_224", size=(112, 112), args={"img_size": 112}),
    Case("timm:vit_tiny_patch16_224", options=_PATCHES, args={"img_size": 96}),
    Case("timm:levit_128s", size=(224, 224)),
    Case("timm:tresnet_m", size=(64, 64)),
    Case("smp:Unet-resnet18", size=(96, 128), trains=True),
    Case("smp:UnetPlusPlus-mobilenet_v2", "bin5"),
    Case("smp:Linknet-resnet18", options=_REPLACE),
    Case("smp:FPN-efficientnet-b0", "rect2", _CIRCULAR),
)


def build(case: Case) -> nn.Module:
    """The model, its weights drawn under a fixed seed, in evaluation mode."""
    library, _, name = case.base.partition(":")
    torch.manual_seed(0)
    if library == "own":
        model = OWN[name]()
    elif library == "timm":
        model = timm.create_model(name, **case.args)
    elif library == "torchvision":
        model = torchvision.models.get_model(name, weights=None, **case.args)
    else:
        import segmentation_models_pytorch as smp

        decoder, _, encoder = name.partition("-")
        model = getattr(smp, decoder)(encoder, encoder_weights=None, classes=3)
    return redraw(model).eval()


def redraw(model: nn.Module) -> nn.Module:
    """Draw gains, biases and running statistics away from 0 and 1, where they would hide a mistake, in place.

    Kernels are scaled to keep the signal's scale (He et al., ICCV 2015), or biases alone would make the output.
    """
    generator = torch.Generator().manual_seed(0)
    saved = set(model.state_dict())
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or name not in saved:
                continue
            if tensor.dim() < 2 or tensor.numel() == max(tensor.shape):
                low, high = (-0.3, 0.3) if name.endswith(("bias", "running_mean", "beta")) else (0.6, 1.4)
                tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))
            elif name.endswith("weight"):
                tensor.mul_((2 / tensor[0].numel()) ** 0.5 / tensor.std())
    return model


def run(case: Case) -> dict[str, np.ndarray]:
    """What the converted model returns, by name: in evaluation and, where it trains, in training and afterwards."""
    model = build(case)
    x = torch.randn(2, 3, *case.size, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", aliasfix.LatticeWarning)
        aliasfix.convert(model, case.filter, example_input=x, inplace=True, **case.options)
    if aliasfix.report(model) is None:
        raise AssertionError(f"{case.name}: nothing is converted")
    with torch.no_grad():
        found = _stored(f"{case.name} eval", model(x))
    if case.trains:
        model.train()
        x.requires_grad_()
        torch.manual_seed(2)
        y = model(x)
        found |= _stored(f"{case.name} train", y)
        sum(part.square().mean() for part in _tensors(y)).backward()
        found |= _stored(f"{case.name} gradient", x.grad)
        with torch.no_grad():
            found |= _stored(f"{case.name} after", model.eval()(x))
    return found


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _stored(name: str, output: Any) -> dict[str, np.ndarray]:
    """The first values of every tensor, under a name that has the shape in it."""
    found = {}
    for index, tensor in enumerate(_tensors(output)):
        values = tensor.detach().float()
        if not values.isfinite().all() or values.std() == 0:
            raise AssertionError(f"{name}: output {index} is constant or not finite, which compares nothing")
        shape = "x".join(map(str, tensor.shape))
        found[f"{name} {index} {shape}"] = values.flatten()[:VALUES].numpy().copy()
    return found
