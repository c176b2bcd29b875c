"""A validation script of timm's parts, put together as in timm's own; it knows nothing of aliasfix."""

import json
import sys

import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import create_model
from timm.utils import AverageMeter, accuracy
from torch import nn


def main(name: str, folder: str) -> None:
    torch.set_num_threads(1)
    model = create_model(name, pretrained=True, num_classes=None, in_chans=3, global_pool=None, scriptable=False)
    data = resolve_data_config({"img_size": 64}, model=model, use_test_size=True)
    loader = create_loader(
        create_dataset("", folder, split="validation"),
        data["input_size"],
        4,
        use_prefetcher=False,
        num_workers=0,
        persistent_workers=False,
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        mean=data["mean"],
        std=data["std"],
        device=torch.device("cpu"),
    )
    losses, top1 = AverageMeter(), AverageMeter()
    with torch.no_grad():
        for images, targets in loader:
            output = model.eval()(images)
            losses.update(nn.functional.cross_entropy(output, targets).item(), len(images))
            top1.update(accuracy(output, targets)[0].item(), len(images))
    print(json.dumps({"loss": losses.avg, "top1": top1.avg}))


if __name__ == "__main__":
    main(*sys.argv[1:])
