"""Planning and converting a copy leave the model alone, while other threads use it."""

import threading

import timm
import torch
from torch import nn

import aliasfix

from .drawing import draw, images


def network() -> nn.Module:
    torch.manual_seed(0)
    return draw(timm.create_model("resnet18", channels=(8, 8, 16, 16)))


class Serving:
    """Call a model in a thread until the block ends, and keep what differs from its first answer."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.x = images()
        self.answers, self.wrong = 0, 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    @torch.no_grad()
    def serve(self) -> None:
        expected = self.model(self.x)
        while not self.stopped.is_set():
            try:
                same = torch.equal(self.model(self.x), expected)
            except Exception:
                same = False
            self.answers += 1
            self.wrong += not same

    def __enter__(self) -> "Serving":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def test_a_model_is_served_while_a_copy_is_converted() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quiet = aliasfix.inspect(model)
    with Serving(model) as serving:
        for _ in range(4):
            assert aliasfix.report(aliasfix.convert(model, "tri3")) == quiet
    assert serving.answers > 4
    assert serving.wrong == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_threads_inspect_one_model() -> None:
    model = network()
    quiet, plans = aliasfix.inspect(model), []
    threads = [threading.Thread(target=lambda: plans.append(aliasfix.inspect(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plans == [quiet] * 4
    assert not model.training
