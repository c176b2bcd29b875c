"""How steady a segmenter and a detector are, and how right, original, converted, calibrated and distilled.

    python benchmarks/tasks.py          three seeds: writes results/tasks.json, and docs/pan.png
    python benchmarks/tasks.py 0        one seed, printed alone

A small U-Net and FCOS on a small backbone are trained on digits on photographs, converted with tri3, calibrated on
scenes without labels, and then distilled on them with the consistency term. Tested on scenes on other photographs,
larger than the networks' input: mASSC and mAISC on pairs of crops, the jitter over a pan, mIoU and mAP of the centres.
"""

import copy
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pictures
import torch
from provenance import ROOT, write
from scenes import CLASSES, MARGIN, SIZE, Scenes
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import aliasfix
from aliasfix.images.cropping import centre
from aliasfix.measure.average_precision import average_precision
from aliasfix.measure.iou import label_map, mean_iou

SEEDS = (0, 1, 2)
TRAINED, CALIBRATED, TESTED = 240, 48, 24
EPOCHS = {"U-Net": 16, "FCOS": 18}
STAGES = ("original", "converted", "calibrated", "distilled")


def block(before, after):
    """Two convolutions with norms."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Three levels, with max pooling on the way down and nearest upsampling on the way up."""

    def __init__(self, width=8):
        super().__init__()
        self.down = nn.ModuleList([block(3, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.back = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x):
        kept = []
        for level in self.down:
            kept.append(level(self.pool(kept[-1]) if kept else x))
        x = kept[2]
        for level, skipped in zip(self.back, kept[1::-1], strict=True):
            x = level(torch.cat([self.up(x), skipped], 1))
        return self.head(x)


class Backbone(nn.Module):
    """Strided convolutions, and a pyramid of two maps."""

    out_channels = 64

    def __init__(self, width=16):
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.stages = nn.ModuleList()
        for before, after in zip((3, *widths), widths, strict=False):
            strided = [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            self.stages.append(nn.Sequential(*strided, nn.Conv2d(after, after, 3, padding=1), nn.ReLU()))
        self.neck = FeaturePyramidNetwork(list(widths[2:]), self.out_channels)

    def forward(self, x):
        maps = {}
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number > 1:
                maps[str(number)] = x
        return self.neck(maps)


def fcos():
    """torchvision's FCOS on it."""
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    return FCOS(
        Backbone(), CLASSES, min_size=SIZE, max_size=SIZE, anchor_generator=anchors, score_thresh=0.3,
        detections_per_img=12, image_mean=[0.4] * 3, image_std=[0.25] * 3,
    )  # fmt: skip


def trained(name, scenes, seed):
    """A network after so many passes over the scenes, in random order."""
    torch.manual_seed(seed)
    net = UNet() if name == "U-Net" else fcos()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    steps = EPOCHS[name] * (TRAINED // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    net.train()
    for step in range(steps):
        if step % (TRAINED // 16) == 0:
            order = torch.randperm(TRAINED)
        chosen = order[step % (TRAINED // 16) * 16 :][:16]
        images = scenes.images[chosen]
        if name == "U-Net":
            loss = F.cross_entropy(net(images), scenes.masks[chosen])
        else:
            loss = sum(net(images, [scenes.objects[n] for n in chosen.tolist()]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def right(name, net, scenes):
    """mIoU, or mAP, of the centres of the test scenes."""
    inner = [MARGIN // 2, MARGIN // 2]
    images = centre(scenes.images, SIZE, 2)
    if name == "U-Net":
        return mean_iou(label_map(net(images)), centre(scenes.masks, SIZE, 2), CLASSES)
    wanted = []
    for one in scenes.objects:
        boxes = (one["boxes"] - torch.tensor(inner * 2)).clamp(0, SIZE)
        there = ((boxes[:, 2:] - boxes[:, :2]) >= 8).all(1)
        wanted.append({"boxes": boxes[there], "labels": one["labels"][there], "scores": torch.ones(int(there.sum()))})
    return average_precision(net(images), wanted)


def measured(name, original, net, scenes, described):
    """The figures of one network, and the comparison."""
    rows = ["massc"] if name == "U-Net" else ["maisc", "box_jitter", "score_variation", "found_again"]
    found = aliasfix.compare(
        original, net, scenes.images, names=("original", "calibrated"), metrics=rows, size=SIZE, margin=MARGIN,
        passes=2, diagonal=6, output=described, resamples=100,
    )  # fmt: skip
    figures = {row: found[row].b.mean for row in rows}
    return figures | {"mIoU" if name == "U-Net" else "mAP": right(name, net, scenes)}, found


def stages(name, seed, scenes, test, draw):
    """What is measured of one network after each stage."""
    described = aliasfix.Returned("label map") if name == "U-Net" else None
    original = trained(name, scenes, seed)
    unlabelled = Scenes(CALIBRATED, 1000 + seed).images
    model = aliasfix.convert(original, example_input=unlabelled[:2])
    found = {"original": measured(name, original, original, test, described)[0]}
    found["converted"] = measured(name, original, model, test, described)[0]
    aliasfix.calibrate(model, unlabelled, original, output=described)
    found["calibrated"], compared = measured(name, original, model, test, described)
    if draw:
        shown = "massc" if name == "U-Net" else "box_jitter"
        (drawing,) = compared[shown].kind.figures(compared)
        with tempfile.TemporaryDirectory() as folder:
            drawing.panels[0].write(Path(folder))
            shutil.copy(Path(folder) / "pan.png", ROOT / "docs" / f"pan-{shown}.png")
    distilled = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        aliasfix.finetune(
            distilled, DataLoader(scenes.images, 16, shuffle=True), folder, original=original, distillation=1, epochs=3,
            lr=5e-4, consistency=0.3, output=described, seed=seed,
        )  # fmt: skip
    found["distilled"] = measured(name, original, distilled.eval(), test, described)[0]
    return found


def one_seed(seed, draw=False):
    """Both networks."""
    for_training, for_test = pictures.halves(0)
    scenes, test = Scenes(TRAINED, seed, names=for_training), Scenes(TESTED, 500 + seed, SIZE + MARGIN, for_test)
    found = {}
    for name in ("U-Net", "FCOS"):
        start = time.process_time()
        found[name] = stages(name, seed, scenes, test, draw)
        for stage, figures in found[name].items():
            print(f"{name} {seed} {stage}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
        print(f"{time.process_time() - start:.0f} s", flush=True)
    return found


def means(runs):
    """Over the seeds."""
    return {
        name: {
            stage: {key: statistics.mean(run[name][stage][key] for run in runs) for key in runs[0][name][stage]}
            for stage in STAGES
        }
        for name in runs[0]
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    given, runs = [int(seed) for seed in sys.argv[1:]], []
    for seed in given or SEEDS:
        runs.append(one_seed(seed, draw=not given and seed == SEEDS[0]))
        if not given:
            result = {"seeds": list(SEEDS[: len(runs)]), "means": means(runs), "runs": runs}
            write("tasks", "python benchmarks/tasks.py", result)
