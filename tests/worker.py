"""One process of a distributed step: ``python -m tests.worker RANK PORT FOLDER``."""

import os
import sys

import torch
from torch import Tensor, nn

import aliasfix

from .drawing import draw, images
from .nets import Net


def model() -> nn.Module:
    torch.manual_seed(0)
    return aliasfix.convert(draw(Net()), inplace=True).eval()


def half(rank: int) -> Tensor:
    return images(4)[2 * rank : 2 * rank + 2]


def main(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        for training in (False, True):
            net = model().train(training)
            parallel = nn.parallel.DistributedDataParallel(net)
            parallel(half(rank)).square().mean().backward()
            torch.save({name: p.grad for name, p in net.named_parameters()}, f"{folder}/{rank}-{training}.pt")
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
