"""Write a model as an ONNX file or a ``torch.export`` program, once the file is seen to compute the same."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import AliasfixError, explaining
from ..text.wording import one_line
from ..tracing.example import inputs
from ..tracing.nested import tensors
from . import fingerprint, saving, store

SUFFIXES = (".onnx", ".pt2")
DYNAMIC = ("batch", "size")
TOLERANCE = 1e-4
_HALF_TOLERANCE = 1e-2  # of types of fewer digits than float32
Run = Callable[[Tensor], Any]
_LARGEST_ONNX = 1536 * 2**20  # bytes of weights; above it torch writes a second file beside


def export(
    model: nn.Module | str | Path,
    target: str | Path,
    *,
    example_input: Tensor | None = None,
    dynamic: Collection[str] = (),
) -> float | None:
    """Export a model in eval mode, and compare what the written file returns with what the model returns.

    Args:
        model: left as it was; or a file or directory that `aliasfix.load` opens.
        target: ``.onnx`` (by ``torch.onnx.export``) or ``.pt2`` (by ``torch.export``).
        example_input: (N, C, spatial…), as for `aliasfix.convert`; only its shape and type are used.
        dynamic: what the file leaves open, of ``batch`` and ``size``; a batch that is not open is 1.

    Returns:
        The largest difference as a share of the output's scale; None for an ONNX file where onnxruntime is not
        installed.

    Raises:
        AliasfixError: the model cannot be exported or the file not be written, or it computes something else than the
            model; nothing is left behind.

    >>> import tempfile, aliasfix
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     aliasfix.export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), f"{folder}/net.pt2", dynamic=["size"])
    0.0
    """
    path = check_export(target)
    onnx = path.suffix == ".onnx"
    if unknown := set(dynamic) - set(DYNAMIC):
        raise AliasfixError(f"dynamic={sorted(unknown)}: choose of {', '.join(DYNAMIC)}")
    model = model if isinstance(model, nn.Module) else store.load(model)
    x = _drawn(model, example_input, "batch" in dynamic)
    with fingerprint.evaluating(model), _quiet():
        program = _program(model, x, dynamic)
        save, open_file = _as_onnx(model, program) if onnx else (partial(_save_pt2, program), _open_pt2)
        with saving.replacing(path) as temporary:
            save(temporary)
            run = open_file(temporary)
            return None if run is None else _difference(model, run, [x, *_others(x, dynamic)], path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on themselves: of sizes that are open, pages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_export(path: str | Path) -> Path:
    """Find out before the work whether a file can be exported to.

    Raises:
        AliasfixError: a suffix that names no format, or a directory that is missing or closed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise AliasfixError(f"{path}: the format is told by the suffix, one of {', '.join(SUFFIXES)}")
    return saving.check_place(path)


def _drawn(model: nn.Module, example_input: Tensor | None, open_batch: bool) -> Tensor:
    (x, *_), _ = inputs(model, example_input)
    # a batch of 1 would be taken for a constant
    shape = (2 if open_batch else 1, *x.shape[1:])
    drawn = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return drawn.to(x.dtype).to(x.device)


def _others(x: Tensor, dynamic: Collection[str]) -> list[Tensor]:
    """Inputs of other shapes that a dynamic program takes; sides are doubled, as they may have to be multiples."""
    others = []
    if "batch" in dynamic:
        others.append(torch.cat([x.flip(0), x[:1]]))
    if "size" in dynamic:
        others.append(torch.cat([x, x.flip(2)], dim=2))
    return others


def _program(model: nn.Module, x: Tensor, dynamic: Collection[str]) -> ExportedProgram:
    axes = [0] * ("batch" in dynamic) + list(range(2, x.dim())) * ("size" in dynamic)
    shapes = (dict.fromkeys(axes, Dim.DYNAMIC),) if axes else None
    hint = f"it may need a fixed {' and '.join(sorted(dynamic))}" if dynamic else ""
    with explaining(f"{type(model).__name__} cannot be exported", hint):
        return torch.export.export(model, (x,), dynamic_shapes=shapes, strict=False)


def _save_pt2(program: ExportedProgram, path: Path) -> None:
    with path.open("wb") as file:  # of a path, torch wants the suffix
        torch.export.save(program, file)


def _open_pt2(path: Path) -> Run:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _as_onnx(model: nn.Module, program: ExportedProgram) -> tuple[Callable[[Path], None], Callable[[Path], Run | None]]:
    size = sum(value.nbytes for value in model.state_dict().values() if isinstance(value, Tensor))
    if size > _LARGEST_ONNX:
        raise AliasfixError(f"weights of {size / 2**30:.1f} GiB do not fit into one .onnx file: export to .pt2")
    try:
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
    except ModuleNotFoundError as error:
        raise AliasfixError(f'{error.name} is not installed: pip install "aliasfix[onnx]"') from error
    except Exception as error:  # torch wraps the cause in a page of advice
        cause = error.__cause__ or error
        hint = "; torch 2.6 lacks batch normalization there: install 2.7 or later" if torch.__version__ < "2.7" else ""
        raise AliasfixError(f"{type(model).__name__} cannot be exported to ONNX: {one_line(cause)}{hint}") from error
    assert converted is not None
    return partial(converted.save, external_data=False), _open_onnx


def _open_onnx(path: Path) -> Run | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: [torch.from_numpy(out) for out in session.run(None, {given.name: x.numpy(force=True)})]


def _difference(model: nn.Module, run: Run, images: list[Tensor], path: Path) -> float:
    """The largest difference as a share of the output's scale.

    Raises:
        AliasfixError: it is more than rounding, or the file does not run.
    """
    worst = 0.0
    for x in images:
        expected = list(tensors(model(x)))
        with explaining(f"{path} is not written: what it holds fails on {tuple(x.shape)}"):
            found = list(tensors(run(x)))
        for ours, theirs in zip(expected, found, strict=True):
            scale = ours.double().abs().max().item()
            worst = max(worst, (ours.double().cpu() - theirs.double()).abs().max().item() / (scale or 1))
    half = torch.finfo(images[0].dtype).eps > torch.finfo(torch.float32).eps
    if not worst <= (_HALF_TOLERANCE if half else TOLERANCE):
        raise AliasfixError(f"{path} is not written: its output differs from the model's by {worst:.1g} of the scale")
    return worst
