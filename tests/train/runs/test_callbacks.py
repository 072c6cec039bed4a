import csv
import io
import logging
import math

import keras
import numpy as np
import pytest
from rich.console import Console

from shardstream.train.engine.callbacks import Every, InputWarning, ProgressBar, ProgressLines
from shardstream.train.runs import callbacks
from shardstream.train.runs.callbacks import COLUMNS, Curves, History, ModelSaver
from shardstream.train.runs.run_folder import RunFolder
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter
from shardstream.train.runs.status import _read_history


def logs(val_loss: float, **others: float) -> dict[str, float]:
    figures = dict.fromkeys(COLUMNS[1:], 0.5) | {"images_per_sec_per_core": 617.25}
    return {
        **figures,
        "val_loss": val_loss,
        "val_accuracy": 0.75,
        "images_per_sec": 1234.5,
        "input_wait": 0.03,
        **others,
    }


def test_history_has_a_row_for_every_epoch(tmp_path):
    history = History(tmp_path / "history.csv")
    for epoch, val_loss in enumerate([0.5, 0.25, 0.25, 0.75]):
        history.on_epoch_end(epoch, logs(val_loss, extra=1.0))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["epoch"], row["val_loss"]) for row in rows] == [
        ("1", "0.5"),
        ("2", "0.25"),
        ("3", "0.25"),
        ("4", "0.75"),
    ]
    assert history.best()["epoch"] == 2  # The first of equals.


INFO = ModelInfo(
    class_names=("a", "b"),
    display_names=("a", "b"),
    image_size=1,
    resize="crop",
    stored_size=None,
    encoding="jpeg",
    quality=95,
    model="small",
    dataset_fingerprint="",
    num_parameters=1,
    precision="float32",
    versions={},
)


def make_model() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])


def test_best_and_last_model(tmp_path):
    folder = RunFolder(tmp_path)
    history = History(folder.history)
    saver, model = ModelSaver(folder, ModelWriter(make_model()), INFO, history), make_model()
    saver.set_model(model)
    assert list(tmp_path.iterdir()) == []
    for epoch, val_loss in enumerate([0.5, 0.25, 0.25, 0.75]):
        model.set_weights([np.full((2, 1), epoch)])
        history.on_epoch_end(epoch, logs(val_loss))
        saver.on_epoch_end(epoch, logs(val_loss))
        assert folder.model_info.exists()
    saver.on_train_end()
    saved = {
        name: keras.saving.load_model(tmp_path / name).get_weights()[0]
        for name in ("best.keras", "last.keras")
    }
    assert {name: float(weights[0, 0]) for name, weights in saved.items()} == {
        "best.keras": 1,
        "last.keras": 3,
    }
    assert ModelInfo.load(tmp_path) == INFO


def test_the_best_model_is_written_when_it_takes_little_of_the_time_and_at_the_latest_when_asked_for(
    tmp_path,
):
    folder, now = RunFolder(tmp_path), 0.0
    history, model = History(folder.history), make_model()

    class SlowWriter(ModelWriter):
        def save(self, *arguments) -> None:
            nonlocal now
            super().save(*arguments)
            now += 1

    saver = ModelSaver(folder, SlowWriter(make_model()), INFO, history, clock=lambda: now)
    saver.set_model(model)

    def kept_after(epoch: int, val_loss: float) -> float:
        model.set_weights([np.full((2, 1), epoch)])
        history.on_epoch_end(epoch, logs(val_loss))
        saver.on_epoch_end(epoch, logs(val_loss))
        return float(keras.saving.load_model(folder.best_model).get_weights()[0][0, 0])

    assert kept_after(0, 0.9) == 0
    now = 200.0  # Of which one was spent on saving.
    assert kept_after(1, 0.8) == 0
    now = 201.0
    assert kept_after(2, 0.85) == 1  # The best there is, though not of this epoch.
    assert kept_after(3, 0.7) == 1
    saver.write_missing()
    assert keras.saving.load_model(folder.best_model).get_weights()[0][0, 0] == 3


def test_every():
    every = Every(10, clock=iter([0, 0, 9, 10, 11, 19.9, 20.5, 45, 54]).__next__)
    answers = [every.is_due() for _ in range(8)]
    assert answers == [False, False, True, False, False, True, True, False]


def test_a_long_run_is_saved_and_drawn_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_SECS_BETWEEN_SAVINGS", 0.0)
    monkeypatch.setattr(callbacks, "_SECS_BETWEEN_DRAWINGS", 0.0)
    folder = RunFolder(tmp_path)
    history = History(folder.history)
    saver = ModelSaver(folder, ModelWriter(make_model()), INFO, history)
    saver.set_model(make_model())
    curves = Curves(folder.curves, history, "title")
    for callback in (history, saver, curves):
        callback.on_epoch_end(0, logs(0.5))
    names = ["best.keras", "curves.png", "history.csv", "last.keras", "model.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_line_for_every_epoch_with_the_time_that_is_left(caplog):
    now = 100.0
    lines = ProgressLines(clock=lambda: now)
    lines.set_params({"epochs": 5, "steps": 3})
    lines.on_train_begin()
    with caplog.at_level(logging.INFO, logger="shardstream.train"):
        for epoch in (2, 3):  # A run that was continued: two epochs were before.
            now += 90
            lines.on_epoch_end(epoch, logs(0.25))
    assert caplog.messages == [
        f"epoch {epoch}/5: loss 0.500, accuracy 0.500, val_loss 0.250, val_accuracy 0.750, "
        f"1234 img/s (617 a core), 3 % waiting for input, {left} left"
        for epoch, left in ((3, "3 min 00 s"), (4, "1 min 30 s"))
    ]


def test_the_bar_moves_and_goes_away():
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=True, width=120))
    bar.set_params({"epochs": 2, "steps": 3})
    bar.on_train_begin()
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        for step in range(3):
            bar.on_train_batch_end(step)
        bar._progress.refresh()
        bar.on_epoch_end(epoch, logs(0.25))
        bar._progress.refresh()
    bar.on_train_end()
    shown = screen.getvalue()
    figures = "val_loss 0.250  val_accuracy 0.750  1,234 img/s  3% waiting for input"
    for text in ("epoch 1/2", "3/6", "epoch 2/2", "6/6", figures):
        assert text in shown
    assert bar._progress.finished


@pytest.mark.parametrize(
    ("waits", "told"),
    [
        ([0.1, 0.15], []),
        ([0.4], []),  # Only 1.6 s.
        ([0.55, 0.6, 0.01, 0.7], ["epoch 1 waited 55 %"]),
        ([0.01, 0.6, 0.6], ["epoch 2 waited 60 %"]),
        ([math.nan, 0.6], ["epoch 2 waited 60 %"]),  # A run that began before there was the column.
    ],
)
def test_much_waiting_for_input_is_told_once(tmp_path, caplog, waits, told):
    history = History(tmp_path / "history.csv")
    for epoch, wait in enumerate(waits):
        history.on_epoch_end(epoch, logs(0.5, input_wait=wait, train_secs=4.0))
        # A new one each time, as in a run that is stopped after every epoch.
        InputWarning(history.rows, tmp_path / "my data").on_epoch_end(epoch)
    advice = (
        f"of its time for input; `shardstream-train doctor '{tmp_path / 'my data'}'` says what would help"
    )
    assert caplog.messages == [f"{sentence} {advice}" for sentence in told]


def test_a_run_that_began_before_there_was_a_column_goes_on(tmp_path):
    history = History(tmp_path / "history.csv")
    history.restore([{"epoch": 1, "val_loss": 0.5}])
    history.on_epoch_end(1, logs(0.25))
    rows = _read_history(tmp_path / "history.csv")
    assert rows[0] == {"epoch": 1, "val_loss": 0.5}
    assert list(rows[1]) == list(COLUMNS)


@pytest.mark.parametrize("losses", [[0.5], [0.9, 0.4, 0.6]])
def test_curves_are_a_picture(tmp_path, losses):
    history = History(tmp_path / "history.csv")
    for epoch, val_loss in enumerate(losses):
        history.on_epoch_end(epoch, logs(val_loss))
    Curves(tmp_path / "curves.png", history, "title").on_train_end()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
