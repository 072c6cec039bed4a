"""confusion_matrix.png and calibration.png: the two plots for papers and slides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine

from shardstream.predict.metrics.calibration import Calibration
from shardstream.predict.metrics.confusion import Confusion
from shardstream.predict.metrics.intervals import Estimate
from shardstream.predict.output.fonts import LabelFont
from shardstream.predict.output.palette import INK, QUIET, RIGHT, WRONG

# With more classes, neither names nor numbers are readable.
_MAX_CLASSES = 30
_MAX_NUMBERS = 15


def write_confusion_matrix(path: Path, confusion: Confusion, lettering: LabelFont) -> None:
    """Writes the matrix as counts and as row fractions, side by side; of many classes those with most errors."""
    labels = confusion.classes_with_most_errors(_MAX_CLASSES)
    counts = confusion.dense(labels)
    shares = counts / np.maximum(confusion.support[labels], 1)[:, np.newaxis]
    side = 2.2 + 0.62 * min(len(labels), 8) + 0.22 * max(len(labels) - 8, 0)
    figure = _figure(2 * side, side + 0.6)
    names = [_shortened(lettering.names[label]) for label in labels]
    font = FontProperties(fname=lettering.font, size=10 if len(labels) <= _MAX_NUMBERS else 7)
    which = "the {} classes with most errors" if confusion.confused_pairs() else "{} of the classes"
    part = "" if len(labels) == confusion.num_classes else f", {which.format(len(labels))}"
    left, right = figure.subplots(1, 2)
    written = [[f"{count:,}" for count in row] for row in counts]
    _draw_matrix(left, counts / max(int(counts.max()), 1), written, names, font)
    left.set_title(f"images{part}", fontsize=11, color=INK, loc="left", pad=10)
    written = [[f"{share:.0%}" for share in row] for row in shares]
    _draw_matrix(right, shares, written, names, font)
    right.set_title("fraction of the row", fontsize=11, color=INK, loc="left", pad=10)
    left.set_ylabel("actual", color=INK)
    figure.savefig(path, format="png")


def write_calibration(path: Path, calibration: Calibration, accuracy: Estimate) -> None:
    """Writes the reliability diagram above the histogram of probabilities."""
    figure = _figure(5.4, 6.4)
    curve, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    curve.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (3, 4)), linewidth=1)
    bins = [
        (one.confidence, one.accuracy)
        for one in calibration.bins
        if one.confidence is not None and one.accuracy is not None
    ]
    confidences = [confidence for confidence, _ in bins]
    values = np.array([share.value for _, share in bins])
    ends = np.abs(np.array([(share.low, share.high) for _, share in bins]) - values[:, np.newaxis]).T
    curve.errorbar(confidences, values, ends, color=RIGHT, marker="o", linewidth=1.6, elinewidth=1)
    curve.set_title(
        f"calibration error {calibration.ece.value:.3f}; mean probability {calibration.confidence:.1%}, "
        f"accuracy {accuracy.value:.1%}",
        fontsize=11,
        color=INK,
        loc="left",
    )
    curve.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    lows = np.array([one.low for one in calibration.bins])
    widths = np.array([one.high - one.low for one in calibration.bins]) * 0.9
    right = np.array([one.num_right for one in calibration.bins])
    wrong = np.array([one.num_wrong for one in calibration.bins])
    histogram.bar(lows, right, widths, align="edge", color=RIGHT, label="correct")
    histogram.bar(lows, wrong, widths, bottom=right, align="edge", color=WRONG, label="incorrect")
    histogram.set(xlabel="probability of the predicted class", ylabel="images")
    histogram.legend(frameon=False, loc="upper left")
    for axis in (curve, histogram):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _figure(width: float, height: float) -> Figure:
    # Not pyplot: it would keep the figure and look for a display.
    figure = Figure(figsize=(width, height), dpi=130, layout=ConstrainedLayoutEngine(h_pad=0.2, w_pad=0.12))
    FigureCanvasAgg(figure)
    return figure


def _draw_matrix(
    axis: Axes,
    values: np.ndarray,
    numbers: Sequence[Sequence[str]],
    names: Sequence[str],
    font: FontProperties,
) -> None:
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(names))
    axis.set_xticks(ticks, names, rotation=90 if len(names) > 5 else 0, fontproperties=font, parse_math=False)
    axis.set_yticks(ticks, names, fontproperties=font, parse_math=False)
    axis.set_xlabel("predicted", color=INK)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if len(names) > _MAX_NUMBERS:
        return
    for y, row in enumerate(numbers):
        for x, number in enumerate(row):
            colour = "white" if values[y, x] > 0.55 else INK
            axis.text(x, y, number, ha="center", va="center", fontsize=10, color=colour)


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
