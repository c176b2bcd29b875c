"""A training script of timm's parts, put together as in timm's own; it knows nothing of aliasfix."""

import argparse
import json
import sys
from types import SimpleNamespace
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--model-kwargs", type=json.loads, default={})
    parser.add_argument("--num-classes", type=int)
    parser.add_argument("--data-dir")
    parser.add_argument("--output")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--resume")
    parser.add_argument("--pretrained", action="store_true")
    return parser.parse_args(given)


def create(args: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        args.model, pretrained=args.pretrained, num_classes=args.num_classes, drop_rate=0.0, **args.model_kwargs
    )
    return model


def parts(args: argparse.Namespace, model: nn.Module, resume: str | None = None) -> SimpleNamespace:
    """What one epoch needs; of a checkpoint, where it stopped."""
    data = resolve_data_config({"img_size": 64}, model=model)
    loader = create_loader(
        create_dataset("", args.data_dir, split="train", is_training=True),
        data["input_size"],
        4,
        is_training=True,
        no_aug=True,
        use_prefetcher=False,
        num_workers=0,
        persistent_workers=False,
        mean=data["mean"],
        std=data["std"],
        device=torch.device("cpu"),
    )
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=5)
    ema = ModelEmaV3(model, decay=0.5)
    start = 0
    if resume:
        start = resume_checkpoint(model, resume, optimizer)
        load_checkpoint(ema.module, resume, use_ema=True)
    scheduler.step(start)
    saver = args.output and CheckpointSaver(model, optimizer, args, ema, checkpoint_dir=args.output, recovery_dir="")
    names = {"model": model, "loader": loader, "optimizer": optimizer, "scheduler": scheduler, "ema": ema}
    return SimpleNamespace(**names, saver=saver, epoch=start)


def train(run: SimpleNamespace) -> float:
    """One epoch; its last loss."""
    torch.manual_seed(run.epoch)
    run.model.train()
    for images, targets in run.loader:
        loss = nn.functional.cross_entropy(run.model(images), targets)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        run.ema.update(run.model)
    run.epoch += 1
    run.scheduler.step(run.epoch)
    if run.saver:
        run.saver.save_checkpoint(run.epoch - 1, metric=-loss.item())
    return float(loss.item())


def state(run: SimpleNamespace) -> dict[str, Any]:
    """All that training changes."""
    return {
        "model": dict(run.model.state_dict()),
        "ema": dict(run.ema.module.state_dict()),
        "optimizer": run.optimizer.state_dict(),
    }


def main(given: list[str]) -> None:
    args = arguments(given)
    run = parts(args, create(args), args.resume)
    while run.epoch < args.epochs:
        print(json.dumps({"epoch": run.epoch, "loss": train(run)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
