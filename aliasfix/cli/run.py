"""``aliasfix run``."""

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import console


def run(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", show_default=False)],
    args: Annotated[list[str] | None, typer.Argument(metavar="[ARGS]...", show_default=False)] = None,
) -> None:
    """Run an unmodified script of Python's with aliasfix imported, so that timm knows converted directories.

    What follows SCRIPT is the script's, options too; so are the exit code and the traceback.

    \b
    aliasfix run validate.py --model local-dir:converted --pretrained --data-dir photos
    aliasfix run train.py --model local-dir:converted --pretrained --data-dir photos --epochs 5
    torchrun --nproc-per-node 2 -m aliasfix run train.py --model local-dir:converted --data-dir photos
    """
    if not os.path.exists(script):
        console.fail(f"no such script: {script}", 2)
    sys.argv = [script, *(args or [])]
    sys.path[0] = str(Path(script).resolve().parent)  # as python sets it
    file = os.path.abspath(script)
    try:
        runpy.run_path(file, run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:  # the script's, shown as Python shows it
        sys.excepthook(type(error), _from(error, file), error.__traceback__)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from None


def _from(error: BaseException, file: str) -> BaseException:
    """An error with its traceback from a file on, without what called that; all of it where the file has no part."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    return error if frames is None else error.with_traceback(frames)
