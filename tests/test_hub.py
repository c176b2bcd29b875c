"""``aliasfix.push_to_hub``, with Hugging Face's own client, against a stand-in for the hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm

import aliasfix

from .hub import COMMIT, Hub

_PUSH_AND_OPEN = """
import sys, timm, torch, torchvision, aliasfix
torch.set_num_threads(1)
torch.manual_seed(0)
model = aliasfix.convert(timm.create_model("resnet18", channels=(4, 4, 8, 8), num_classes=3)).eval()
print(aliasfix.push_to_hub(model, "me/net", token="hf_mine", private=True))
opened = timm.create_model("hf-hub:me/net", pretrained=True).eval()
x = torch.randn(1, 3, 64, 64)
with torch.no_grad():
    assert torch.equal(opened(x), model(x))
assert aliasfix.report(opened) == aliasfix.report(model)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub
        hub.shutdown()


def process(script: str, endpoint: str, home: Path) -> str:
    """Run a script whose hub is at another address."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=600, cwd=home
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_pushed_opens_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    assert process(_PUSH_AND_OPEN, hub.address, tmp_path) == f"{hub.address}/me/net/commit/{COMMIT}\n"
    assert sorted(hub.files) == ["me/net/config.json", "me/net/model.safetensors"]
    posts = [(path, token) for method, path, token in hub.requests if method == "POST"]
    paths = ["/api/repos/create", "/api/models/me/net/preupload/main", "/api/models/me/net/commit/main"]
    assert posts == [(path, "Bearer hf_mine") for path in paths]
    # what came by way of the hub is a directory like any other
    for name, data in hub.files.items():
        (tmp_path / Path(name).name).write_bytes(data)
    assert aliasfix.report(aliasfix.load(tmp_path)).recipe == aliasfix.Recipe()


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    model = aliasfix.convert(timm.create_model("resnet18", channels=(4, 4, 8, 8), num_classes=3))
    with pytest.raises(aliasfix.AliasfixError, match="me/net could not be pushed: "):
        aliasfix.push_to_hub(model, "me/net", token="hf_mine")
