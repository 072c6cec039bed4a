"""Progress output: a bar, a line per epoch, a warning about slow input. All are plain Keras callbacks."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shardstream.ingest.common.durations import duration

logger = logging.getLogger(__name__)

# Fraction of an epoch's training time. Below it there is little to gain; and in epochs of a few steps, starting the
# input dominates, which is no reason for a warning.
_MUCH_WAITING = 0.15
_MUCH_WAITING_SECS = 2.0


class Every:
    """A timer that is due every `secs` seconds, first `secs` after it was created."""

    def __init__(self, secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the clock as an argument, so that tests need not wait."""
        self._secs = secs
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """Returns whether the time has passed, and restarts it if so."""
        now = self._clock()
        if now - self._last < self._secs:
            return False
        self._last = now
        return True


class ProgressLines(keras.callbacks.Callback):
    """Logs a line after each epoch, with an estimate of the remaining time."""

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
        """Logs the metrics of the epoch."""
        self._done += 1
        num_epochs = cast(dict, self.params)["epochs"]
        left = (self._clock() - self._began) / self._done * (num_epochs - epoch - 1)
        line = (
            "epoch %d/%d: loss %.3f, accuracy %.3f, val_loss %.3f, val_accuracy %.3f, "
            "%.0f img/s (%.0f a core), %.0f %% waiting for input, %s left"
        )
        logs = logs or {}
        rates = (logs[name] for name in ("images_per_sec", "images_per_sec_per_core"))
        figures = [
            *(logs[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")),
            *rates,
            100 * logs["input_wait"],
        ]
        logger.info(line, epoch + 1, num_epochs, *figures, duration(left))


class InputWarning(keras.callbacks.Callback):
    """Warns once per run if training waits for its input, and says what to do."""

    def __init__(self, rows: Sequence[Mapping[str, float]], data_dir: Path) -> None:
        """Takes the rows of all epochs so far; the callback that adds a row must come earlier in the list."""
        super().__init__()
        self._rows = rows
        self._data_dir = data_dir

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Warns after the first epoch of the run that waited long."""
        waited_much = list(filter(_waited_much, self._rows))
        if waited_much and waited_much[0] is self._rows[-1]:
            logger.warning(
                "epoch %d waited %.0f %% of its time for input; `shardstream-train doctor %s` says what would help",
                epoch + 1,
                100 * self._rows[-1]["input_wait"],
                shlex.quote(str(self._data_dir)),
            )


def _waited_much(row: Mapping[str, float]) -> bool:
    share = row["input_wait"]
    return share > _MUCH_WAITING and share * row["train_secs"] > _MUCH_WAITING_SECS


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar for the entire run on stderr."""

    # For the loop: this callback uses the loss of a step only if it is available, and never requests it.
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
        """Shows the epoch number."""
        self._epoch = epoch
        self._progress.update(self._task, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Moves to the current step of the run, which may have resumed anywhere."""
        self._progress.update(self._task, completed=self._epoch * self._steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Shows the metrics of the epoch."""
        logs = logs or {}
        figures = (
            f"val_loss {logs['val_loss']:.3f}  val_accuracy {logs['val_accuracy']:.3f}  "
            f"{logs['images_per_sec']:,.0f} img/s  {logs['input_wait']:.0%} waiting for input"
        )
        self._progress.update(self._task, figures=figures)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Removes the bar."""
        self.close()

    def close(self) -> None:
        """Removes the bar, after an error too."""
        self._progress.stop()
