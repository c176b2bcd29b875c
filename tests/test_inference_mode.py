"""Everything works inside ``torch.inference_mode()`` as outside of it, and makes tensors that may be trained."""

import copy

import pytest
import torch
from torch import Tensor, nn

import aliasfix

from .nets import Net

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class AsksForAValue(Net):
    """It cannot be traced without values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if x.sum().item() > 0 else 2)


@pytest.mark.parametrize("cls", [Net, AsksForAValue])
def test_a_conversion(cls: type[nn.Module]) -> None:
    """Also on an input that was made there."""
    model = cls().eval()
    outside = aliasfix.convert(model, example_input=X)
    with torch.inference_mode():
        inside = aliasfix.convert(model, example_input=X.clone())
        assert aliasfix.inspect(model, example_input=X.clone()) == aliasfix.report(inside)
    assert aliasfix.report(inside) == aliasfix.report(outside)
    assert torch.equal(inside(X), outside(X))
    inside.train()(X).sum().backward()


def test_a_model_that_was_made_there() -> None:
    with torch.inference_mode():
        model = Net().eval()
    converted = aliasfix.convert(model, example_input=X)
    assert not any(tensor.is_inference() for tensor in (*converted.parameters(), *converted.buffers()))


@pytest.mark.filterwarnings("ignore::aliasfix.DoubtWarning")  # the network was not trained
def test_what_follows_a_conversion(tmp_path) -> None:
    model = Net().eval()
    converted = aliasfix.convert(model)
    path = tmp_path / "net.safetensors"
    with torch.inference_mode():
        assert aliasfix.verify(converted, example_input=X.clone()).ok
        assert aliasfix.calibrate(copy.deepcopy(converted), torch.rand(16, 3, 32, 32)).images == 12
        aliasfix.save(converted, path)
        loaded = aliasfix.load(path, Net())
        reverted = aliasfix.revert(converted)
        assert torch.equal(loaded.eval()(X), converted(X))
    for found in (loaded, reverted):
        assert not any(tensor.is_inference() for tensor in (*found.parameters(), *found.buffers()))
