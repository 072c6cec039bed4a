import matplotlib.figure
import pytest

from shardstream.train.runs.curves import draw_curves

ROWS = [
    {"epoch": 1, "loss": 0.9, "accuracy": 0.5, "val_loss": 0.8, "val_accuracy": 0.6},
    {"epoch": 2, "loss": 0.5, "accuracy": 0.7, "val_loss": 0.3, "val_accuracy": 0.85},
    {"epoch": 3, "loss": 0.2, "accuracy": 0.9, "val_loss": 0.4, "val_accuracy": 0.9},
]


@pytest.fixture
def figure(monkeypatch):
    """What is drawn, as Matplotlib objects instead of pixels."""
    drawn = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, path: drawn.append(self))
    draw_curves(ROWS, None, title="small", best=ROWS[1])
    return drawn[0]


def test_all_four_curves_are_drawn(figure):
    lines = {
        (axes.get_title("left"), line.get_label()): list(line.get_ydata())
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() in ("train", "validation")
    }
    assert lines == {
        ("Loss (cross-entropy)", "train"): [0.9, 0.5, 0.2],
        ("Loss (cross-entropy)", "validation"): [0.8, 0.3, 0.4],
        ("Accuracy", "train"): [0.5, 0.7, 0.9],
        ("Accuracy", "validation"): [0.6, 0.85, 0.9],
    }


def test_the_best_epoch_is_marked_and_named(figure):
    marks = [line for axes in figure.axes for line in axes.lines if "best" in str(line.get_label())]
    assert [(list(mark.get_xdata()), list(mark.get_ydata())) for mark in marks] == [
        ([2], [0.3]),
        ([2], [0.85]),
    ]
    assert [axes.get_title("right") for axes in figure.axes] == ["0.300 at epoch 2", "85.0% at epoch 2"]
    assert figure._suptitle.get_text() == "small"
