"""Every family is converted, calibrated on inputs without labels, and compared, and nobody says what it returns."""

import sys
from pathlib import Path

import pytest
import torch

import aliasfix
from aliasfix.families import read

sys.path.insert(0, str(Path(__file__).parent))
from nets import NETS, build

SHORT = ("plain 1-D", "plain 2-D", "plain 3-D", "plain 1-D classifier", "torchcrepe")
QUICK = {
    "passes": 1, "diagonal": 2, "reach": 1, "feature_images": 1, "feature_shifts": 1, "resamples": 10,
}  # fmt: skip
ROWS = {
    "logits": "consistency",
    "label map": "massc",
    "dense": "psnr",
    "boxes": "box_jitter",
    "keypoints": "keypoint_jitter",
    "pitch": "pitch",
    None: "stability",
}


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
@pytest.mark.filterwarnings("ignore")  # of the libraries themselves
def test_it_is_converted_calibrated_and_compared(name: str) -> None:
    original, inputs = build(name)
    size = 1024 if name == "torchcrepe" else None
    batch = inputs[..., :size]
    with torch.no_grad():
        answer = read(original, original(batch), batch)
    assert answer.kind == NETS[name][1]
    model = aliasfix.convert(original, example_input=batch[:2])
    found = aliasfix.calibrate(model, inputs, original, "least-squares", size=size)
    assert found.scores["original"].error == 0
    assert found.after.error != found.before.error
    assert (found.before.agreement is None) == (answer.kind in ("dense", None))
    compared = aliasfix.compare(original, model, inputs, size=size, **QUICK)
    failed = {one.name: one.failed for one in compared.measures if one.failed}
    assert not failed
    assert compared.get(ROWS[answer.kind]) is not None
    assert compared["aliasing"].b.mean < compared["aliasing"].a.mean
    if answer.kind == "pitch":  # of trained weights: they hear a tone more steadily
        assert compared["pitch"].b.mean < compared["pitch"].a.mean
