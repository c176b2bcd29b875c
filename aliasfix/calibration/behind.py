"""Which convolutions take up what the blurs of a converted network return."""

from __future__ import annotations

from torch import Tensor, fx, nn

from aliasfix.tracing.operation import of
from aliasfix.tracing.recorder import record
from aliasfix.tracing.structure import structure

_BLURS = {"blur_pool", "blur_upsample", "ideal_pool", "ideal_upsample"}
_LINEAR = ("conv", "linear")


def behind(model: nn.Module, example: Tensor) -> list[str]:
    """The modules whose convolution or linear map is the first on a way out of a blur, in the order in which they run.

    >>> from aliasfix import convert
    >>> net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    >>> behind(convert(net), Tensor(1, 3, 8, 8))
    ['2']
    """
    trace = record(structure(model), (example,), {})
    waiting: list[fx.Node] = [node for node in trace.graph.nodes if of(node).name in _BLURS]
    seen, ends = set(waiting), set()
    while waiting:
        for user in waiting.pop().users:
            if user in seen:
                continue
            seen.add(user)
            if of(user).name.startswith(_LINEAR):
                ends.add(user)
            else:
                waiting.append(user)
    paths = [of(node).path for node in trace.graph.nodes if node in ends]
    return list(dict.fromkeys(path for path in paths if path))
