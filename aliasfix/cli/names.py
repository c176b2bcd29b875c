"""``aliasfix list``."""

import fnmatch
import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from .. import filters, methods
from ..files import formats, models
from ..files.record import LIBRARIES
from ..planning.rule import rules
from . import console, options

KINDS = {
    "rules": "operations that are known, and what becomes of them",
    "filters": "low-pass filters, for --filter",
    "methods": "methods of conversion, for --method",
    "models": "models of timm and torchvision that can be named",
    "formats": "suffixes of the files that are read and written",
}
"""What can be listed."""


@console.one_line_errors
def list_names(
    what: Annotated[
        str | None, typer.Argument(metavar="[rules|filters|methods|models|formats]", show_default=False)
    ] = None,
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", show_default=False)] = "*",
    as_json: options.Json = False,
) -> None:
    """List the rules, the filters, the methods, the models that can be named, or the formats of checkpoints.

    \b
    aliasfix list
    aliasfix list filters
    aliasfix list models 'timm:resnet50*'
    """
    kinds: dict[str | None, Callable[[], dict[str, str]]] = {
        None: lambda: KINDS,
        "rules": _rules,
        "filters": _filters,
        "methods": _methods,
        "models": _models,
        "formats": _formats,
    }
    if what not in kinds:
        console.fail(f"{what}: choose one of {', '.join(KINDS)}", 2)
    with console.working(f"listing the {what or 'lists'}"):
        named = {name: text for name, text in kinds[what]().items() if fnmatch.fnmatchcase(name, pattern)}
    if as_json:
        console.print_json(list(named))
        return
    width = max(map(len, named), default=0)
    for name, text in named.items():
        print(f"{name:{width}}  {text}".rstrip())


def _rules() -> dict[str, str]:
    described = {rule.name: (inspect.getdoc(type(rule)) or "").split("\n\n")[0] for rule in rules()}
    return {name: " ".join(text.replace("``", "").split()) for name, text in described.items()}


def _filters() -> dict[str, str]:
    taps = {name: filters.taps(name, 2) for name in filters.names() if name != filters.IDEAL}
    described = {name: "at stride 2: " + " ".join(f"{tap:.4g}" for tap in row) for name, row in taps.items()}
    return described | {filters.IDEAL: "no taps: it keeps exactly the frequencies below half the new sampling rate"}


def _methods() -> dict[str, str]:
    return {name: methods.describe(name) for name in methods.names()}


def _models() -> dict[str, str]:
    return {f"{library}:{name}": "" for library in LIBRARIES for name in models.names(library)}


def _formats() -> dict[str, str]:
    return {suffix: f"{form.name}: {_abilities(form)}" for suffix, form in formats.formats().items()}


def _abilities(form: formats.Format) -> str:
    kept = "a whole checkpoint" if form.keeps_all else "weights"
    return f"{kept}, {'read and written' if form.write else 'read'}{', streamed' if form.stream else ''}"
