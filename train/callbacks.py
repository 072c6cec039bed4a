"""What happens after each epoch: models, history, curves and progress. All are plain Keras callbacks."""

import csv
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shardstream.train.curves import draw_curves
from shardstream.train.durations import duration
from shardstream.train.export import ModelInfo, ModelWriter
from shardstream.train.run_folder import RunFolder, write_beside, write_if_possible

logger = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "images_per_sec",
    "images_per_sec_per_core",
    "input_wait",
    "train_secs",
)

# Drawing takes a third of a second and saving a tenth: nothing in a long epoch, much in one of a second.
_SECS_BETWEEN_DRAWINGS = 60.0
_SECS_BETWEEN_SAVINGS = 60.0
# The best model is written again once so many times what that takes is over: at most 0.5 % of the time.
_LEAST_SHARE = 200
# Of an epoch's training. Less gains little; and starting the input, which an epoch of a few steps consists of, is no
# reason to look at anything.
_MUCH_WAITING = 0.15
_MUCH_WAITING_SECS = 2.0


class Every:
    """Says yes once in so many seconds, and the first time that long after it was made."""

    def __init__(self, secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the clock as an argument, so that tests need not wait."""
        self._secs = secs
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """Returns whether the time is over, and starts it anew if so."""
        now = self._clock()
        if now - self._last < self._secs:
            return False
        self._last = now
        return True


class History(keras.callbacks.Callback):
    """Keeps a row of figures for each epoch, in memory and in history.csv."""

    def __init__(self, path: Path) -> None:
        """Writes to `path` after each epoch."""
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._path = path

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Makes the file agree with the rows, of which there are some where a run goes on."""
        write_if_possible(self._path, self._write)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Adds the row and writes the file anew."""
        self.rows.append({"epoch": epoch + 1, **{name: (logs or {})[name] for name in COLUMNS[1:]}})
        write_if_possible(self._path, self._write)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes the file for the last time: now it has to succeed."""
        write_beside(self._path, self._write)

    def restore(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Takes the rows of a run that goes on, which may have begun before there was every column."""
        self.rows = [dict.fromkeys(COLUMNS, math.nan) | dict(row) for row in rows]

    def best(self) -> dict[str, float]:
        """Returns the row with the lowest validation loss, the first of several."""
        return min(self.rows, key=lambda row: row["val_loss"])

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class ModelSaver(keras.callbacks.Callback):
    """Keeps best.keras, by validation loss, and last.keras.

    Where epochs are short best.keras may be that of an epoch before, until training ends or is stopped.

    Attributes:
        best_weights: Of the best model so far, in Keras's order; empty before the first epoch is over.
    """

    def __init__(
        self,
        folder: RunFolder,
        writer: ModelWriter,
        info: ModelInfo,
        history: History,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the best epoch from `history`, which has to come before in the list of callbacks.

        Writes model.json beside the first best.keras, so that it is there only if a model is.
        """
        super().__init__()
        self.best_weights: list[np.ndarray] = []
        self._folder = folder
        self._writer = writer
        self._info = info
        self._history = history
        self._clock = clock
        self._saving = Every(_SECS_BETWEEN_SAVINGS)
        self._best_is_missing = False
        self._best_is_due_at = clock()

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Makes best.keras agree with where a run goes on, which may be before an epoch it was once at."""
        if self.best_weights:
            self._write_best()
        else:
            self._folder.model_info.unlink(missing_ok=True)
            self._folder.best_model.unlink(missing_ok=True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keeps the model if it is the best so far, and saves it if that would not take too much of the time."""
        if self._history.best()["epoch"] == epoch + 1:
            self.best_weights = self._weights()
            self._best_is_missing = True
        if self._clock() >= self._best_is_due_at:
            self.write_missing()
        if self._saving.is_due():
            write_if_possible(self._folder.last_model, partial(self._writer.save, self._weights()))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Saves the model as training leaves it, and the best one if that is still to be done."""
        self._writer.write(cast(keras.Model, self.model), self._folder.last_model)
        if self._best_is_missing:
            write_beside(self._folder.best_model, partial(self._writer.save, self.best_weights))
            self._info.save(self._folder.path)

    def write_missing(self) -> None:
        """Saves the best model if that is still to be done."""
        if self._best_is_missing:
            self._write_best()

    def _write_best(self) -> None:
        best, info = self._folder.best_model, self._folder.model_info
        began = self._clock()
        written = write_if_possible(best, partial(self._writer.save, self.best_weights))
        written = written and write_if_possible(info, self._info.write)
        self._best_is_missing = not written
        now = self._clock()
        self._best_is_due_at = now + _LEAST_SHARE * (now - began)

    def _weights(self) -> list[np.ndarray]:
        return cast(keras.Model, self.model).get_weights()


class Curves(keras.callbacks.Callback):
    """Draws curves.png now and then, so that a long run can be watched, and at the end."""

    def __init__(self, path: Path, history: History, title: str) -> None:
        """Draws what `history`, which has to come before in the list of callbacks, has gathered."""
        super().__init__()
        self._path = path
        self._history = history
        self._title = title
        self._drawing = Every(_SECS_BETWEEN_DRAWINGS)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Draws if the last drawing is old."""
        if self._drawing.is_due():
            write_if_possible(self._path, self._draw)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Draws the whole run."""
        write_beside(self._path, self._draw)

    def _draw(self, path: Path) -> None:
        draw_curves(self._history.rows, path, title=self._title)


class ProgressLines(keras.callbacks.Callback):
    """Logs a line after each epoch, with an estimate of the time that is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the clock as an argument, so that tests need not wait."""
        super().__init__()
        self._clock = clock
        self._began = clock()
        self._done = 0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Starts the clock."""
        self._began = self._clock()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Logs the figures of the epoch."""
        self._done += 1
        num_epochs = cast(dict, self.params)["epochs"]
        left = (self._clock() - self._began) / self._done * (num_epochs - epoch - 1)
        line = (
            "epoch %d/%d: loss %.3f, accuracy %.3f, val_loss %.3f, val_accuracy %.3f, "
            "%.0f img/s (%.0f a core), %.0f %% waiting for input, %s left"
        )
        logs = logs or {}
        rates = (logs[name] for name in ("images_per_sec", "images_per_sec_per_core"))
        figures = [*(logs[name] for name in COLUMNS[1:5]), *rates, 100 * logs["input_wait"]]
        logger.info(line, epoch + 1, num_epochs, *figures, duration(left))


class InputWarning(keras.callbacks.Callback):
    """Says once in a run that it waits for its input, and what to do."""

    def __init__(self, history: History, data_dir: Path) -> None:
        """Looks at `history`, which has to come before in the list of callbacks."""
        super().__init__()
        self._history = history
        self._data_dir = data_dir

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Warns after the first epoch of the run that waited much."""
        waited_much = list(filter(_waited_much, self._history.rows))
        if waited_much and waited_much[0] is self._history.rows[-1]:
            logger.warning(
                "epoch %d waited %.0f %% of its time for input; `shardstream-train doctor %s` says what would help",
                epoch + 1,
                100 * self._history.rows[-1]["input_wait"],
                shlex.quote(str(self._data_dir)),
            )


def _waited_much(row: Mapping[str, float]) -> bool:
    share = row["input_wait"]
    return share > _MUCH_WAITING and share * row["train_secs"] > _MUCH_WAITING_SECS


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar for the whole run on stderr."""

    # For the loop: the loss of a step is looked at when one is there, never asked for.
    reads_batches_rarely = True

    def __init__(self, console: Console | None = None) -> None:
        """Draws on `console`, by default stderr."""
        super().__init__()
        self._figures = ""
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console or Console(file=sys.stderr),
            transient=True,
        )

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Shows the empty bar."""
        epochs, self._steps = (cast(dict, self.params)[name] for name in ("epochs", "steps"))
        self._task = self._progress.add_task(
            "", total=epochs * self._steps, epoch=1, epochs=epochs, figures=""
        )
        self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Shows the number of the epoch."""
        self._epoch = epoch
        self._progress.update(self._task, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Moves to where the run is, which may have gone on from anywhere."""
        self._progress.update(self._task, completed=self._epoch * self._steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Shows the figures of the epoch."""
        logs = logs or {}
        figures = (
            f"val_loss {logs['val_loss']:.3f}  val_accuracy {logs['val_accuracy']:.3f}  "
            f"{logs['images_per_sec']:,.0f} img/s  {logs['input_wait']:.0%} waiting for input"
        )
        self._progress.update(self._task, figures=figures)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Takes the bar away."""
        self.close()

    def close(self) -> None:
        """Takes the bar away, after an error too."""
        self._progress.stop()
