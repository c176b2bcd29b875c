"""``aliasfix revert``."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import AliasfixError
from ..files import opening, saving
from . import console, options


@console.one_line_errors
def revert(
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False)],
    output: options.Output,
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the weights of a converted file for the original architecture again.

    They are the same tensors: what is left out is the record of the conversion. Weights that were trained after
    the conversion are trained for blurs that the original architecture does not have.

    \b
    aliasfix revert converted.safetensors -o plain.safetensors
    aliasfix revert converted/ -o plain.pth
    """
    with console.working(f"reading {path}", quiet):
        file = opening.read_weights(path, trust_pickle)
    if file.record is None:
        raise AliasfixError(f"{path} was not converted by aliasfix: there is nothing to revert")
    if file.record.plan.calibration is not None:
        raise AliasfixError(
            f"{path} was calibrated, which changed its weights: the original's are in what it was converted from"
        )
    with console.working(f"writing {output}", quiet):
        saving.write_checkpoint(output, file, None)
    if not quiet:
        base = file.record.base
        print(f"{output}: the weights of {path}" + (f", for {base}" if base else ""))
