"""A strip of frames: what two networks make of an image as the camera pans, one network above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from aliasfix.measure.drawing import ONE, TWO, Drawing, Panel, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 160
"""Pixels of a frame as it is drawn."""
_FRAMES = 6


def strip(
    name: str,
    what: str,
    pictures: Sequence[Image.Image],
    outputs: Sequence[Sequence[Tensor]],
    size: int,
    names: tuple[str, str],
) -> Drawing:
    """Draw the first frames of a pan with what each network says of them.

    Args:
        name: of the figure.
        what: is drawn, in a word.
        pictures: the frames.
        outputs: of each network, for each frame its boxes (n, 4) in the frame's pixels, or its label map (size, size).
        size: side of a frame, in pixels.
        names: of the networks.
    """

    def draw() -> Figure:
        count = min(_FRAMES, len(pictures))
        figure = new_figure(1.15 * count, 2.4)
        grid = figure.subplots(len(outputs), count, squeeze=False)
        for row, own, colour, called in zip(grid, outputs, (ONE, TWO), names, strict=True):
            for number, axis in enumerate(row):
                ends = (0, size, size, 0)
                axis.imshow(pictures[number].resize((SIDE, SIDE)), extent=ends).set_gid(f"{called}-{number}")
                _draw(axis, own[number], colour, ends, f"{called}-{number}")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_xlabel(f"{number} px" if row is grid[-1] else "")
            row[0].set_ylabel(called)
        return figure

    caption = (
        f"The {what} of {names[0]} (above) and {names[1]} (below) as the camera moves to the right over the first "
        "image by a pixel a frame."
    )
    alt = f"{what} of {names[0]} and {names[1]} in the frames of a pan"
    return Drawing(name, "A pan, frame by frame", caption, (Panel(name, alt, draw),))


def _draw(axis: object, output: Tensor, colour: str, ends: tuple[int, int, int, int], name: str) -> None:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    assert isinstance(axis, Axes)
    if output.ndim == 2 and output.shape[1] != 4:
        shown = output.float().where(output > 0, float("nan")).tolist()  # class 0 lets the picture through
        axis.imshow(shown, cmap="tab20", vmin=0, vmax=20, alpha=0.6, extent=ends, interpolation="nearest").set_gid(
            f"{name}-labels"
        )
        return
    for left, top, right, bottom in output.tolist():
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2))
