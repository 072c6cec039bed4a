"""Loss and accuracy over the epochs, as an image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Blue and orange of Okabe and Ito (2008): distinguishable for color-blind people and in grayscale.
_TRAIN, _VALIDATION, _QUIET, _GRID = "#0072B2", "#D55E00", "#555555", "#E3E3E3"


def draw_curves(
    rows: Sequence[Mapping[str, float]], path: Path, *, title: str, best: Mapping[str, float]
) -> None:
    """Draws `rows` of a history, at least one, to the image file `path`, and marks the best one."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
    # Not pyplot: its state is global, and it looks for a display.
    figure = Figure(figsize=(11, 4.6), dpi=150, layout=layout, facecolor="white")
    loss, accuracy = figure.subplots(1, 2)
    _draw(loss, rows, "loss", best)
    _draw(accuracy, rows, "accuracy", best)
    loss.set_title("Loss (cross-entropy)", loc="left", fontsize=12)
    accuracy.set_title("Accuracy", loc="left", fontsize=12)
    epoch = f"epoch {best['epoch']:.0f}"
    loss.set_title(f"{best['val_loss']:.3f} at {epoch}", loc="right", fontsize=11, color=_VALIDATION)
    accuracy.set_title(f"{best['val_accuracy']:.1%} at {epoch}", loc="right", fontsize=11, color=_VALIDATION)
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    figure.savefig(path)


def _draw(axes: Axes, rows: Sequence[Mapping[str, float]], name: str, best: Mapping[str, float]) -> None:
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else None  # A line with one point would be invisible.
    validation = [row[f"val_{name}"] for row in rows]
    axes.plot(epochs, [row[name] for row in rows], color=_TRAIN, lw=2, marker=marker, label="train")
    axes.plot(epochs, validation, color=_VALIDATION, lw=2, marker=marker, label="validation")
    axes.axvline(best["epoch"], color=_QUIET, lw=1, ls=(0, (2, 3)), zorder=0)
    axes.plot(
        best["epoch"],
        best[f"val_{name}"],
        "o",
        ms=9,
        mfc="white",
        mec=_VALIDATION,
        mew=2.2,
        zorder=5,
        label="best epoch",
    )
    axes.set_xlabel("epoch", color=_QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(color=_GRID, labelcolor=_QUIET)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.margins(x=0.03)
