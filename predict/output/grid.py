"""grid.png: images with their actual and predicted classes."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from shardstream.predict.findings.gallery import Shown
from shardstream.predict.output.fonts import LabelFont
from shardstream.predict.output.palette import INK, RIGHT, WRONG

GRID_SIZE = 32


def write_grid(path: Path, pictures: Sequence[Shown], lettering: LabelFont, *, title: str) -> None:
    """Writes the first 32 images with actual and predicted names as a PNG file."""
    shown = pictures[:GRID_SIZE]
    num_columns = min(8, max(1, math.ceil(math.sqrt(2 * len(shown)))))
    num_rows = max(1, math.ceil(len(shown) / num_columns))
    # Not pyplot: it would keep the figure and look for a display.
    figure = Figure(figsize=(1.9 * num_columns + 0.4, 2.35 * num_rows + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=INK)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, picture in zip(axes, shown, strict=False):
        _draw(axis, picture, lettering)
    figure.savefig(path, format="png")


def _draw(axis: Axes, shown: Shown, lettering: LabelFont) -> None:
    prediction = shown.prediction
    colour = RIGHT if prediction.right else WRONG
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    axis.imshow(shown.picture.pixels())
    for spine in axis.spines.values():
        # Errors are also marked by a thick frame and a word, for people who cannot distinguish the colors.
        spine.set(color=colour, linewidth=1 if prediction.right else 4)
    font = FontProperties(fname=lettering.font, size=9)
    actual, predicted = (
        _shortened(lettering.names[label]) for label in (prediction.actual, prediction.predicted)
    )
    axis.set_title(f"actual {actual}", fontproperties=font, color=INK, loc="left", pad=4, parse_math=False)
    said = f"{predicted}, {prediction.probability:.0%}"
    axis.set_xlabel(
        f"correct: {said}" if prediction.right else f"INCORRECT: {said}",
        fontproperties=font,
        color=colour,
        loc="left",
        parse_math=False,
    )


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
