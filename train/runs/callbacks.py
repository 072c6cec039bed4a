"""What an epoch leaves on disk: models, history, curves. All are plain Keras callbacks."""

import csv
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import keras
import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine.callbacks import Every
from shardstream.train.runs.best_epoch import BEST_BY, BestBy, best_row
from shardstream.train.runs.curves import draw_curves
from shardstream.train.runs.run_folder import RunFolder, write_beside, write_if_possible
from shardstream.train.runs.saved_model import ModelInfo, ModelWriter

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


class History(keras.callbacks.Callback):
    """Keeps a row of figures for each epoch, in memory and in history.csv."""

    def __init__(self, path: Path, best_by: BestBy = BEST_BY) -> None:
        """Writes to `path` after each epoch; `best_by` is what the run began with."""
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._path = path
        self._best_by: BestBy = best_by

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
        """Returns the row of the best epoch, the first of several."""
        return best_row(self.rows, self._best_by)

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(
                file, COLUMNS, extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(self.rows)


class ModelSaver(keras.callbacks.Callback):
    """Keeps best.keras, of the best epoch, and last.keras.

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
        beginning: tuple[ModelWriter, ModelInfo] | None = None,
    ) -> None:
        """Takes the best epoch from `history`, which has to come before in the list of callbacks.

        Writes model.json beside the first best.keras, so that it is there only if a model is. `beginning` writes
        what was there before the first epoch, where that was a model of another kind.
        """
        super().__init__()
        self.best_weights: list[np.ndarray] = []
        self._folder = folder
        self._writer = writer
        self._info = info
        self._beginning = beginning or (writer, info)
        self._history = history
        self._temperature = 1.0
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
            writer, info = self._of_best()
            write_beside(self._folder.best_model, partial(writer.save, self.best_weights))
            info.save(self._folder.path)

    def restore(self, best_weights: Sequence[np.ndarray]) -> None:
        """Takes the weights of the best model of a run that goes on.

        Raises:
            DatasetError: They are of another model.
        """
        expected = [tuple(weight.shape) for weight in self._of_best()[0].twin.weights] if best_weights else []
        if [weights.shape for weights in best_weights] != expected:
            raise DatasetError(
                "the checkpoint holds the best weights of another model; --no-resume starts over"
            )
        self.best_weights = list(best_weights)

    def replace_best(self, weights: Sequence[np.ndarray], *, temperature: float) -> None:
        """Saves the best model with other weights, those that a calibration gave it."""
        self.best_weights, self._temperature = list(weights), temperature
        writer, info = self._of_best()
        write_beside(self._folder.best_model, partial(writer.save, self.best_weights))
        info.save(self._folder.path)

    def best_info(self) -> ModelInfo:
        """Returns what goes with the best model."""
        return self._of_best()[1]

    def _of_best(self) -> tuple[ModelWriter, ModelInfo]:
        """Returns what writes the best model, and what goes with it."""
        best = self._history.best()
        if best["epoch"]:
            return self._writer, dataclasses.replace(self._info, temperature=self._temperature)
        writer, info = self._beginning
        return writer, dataclasses.replace(info, temperature=best.get("temperature", 1.0))

    def write_missing(self) -> None:
        """Saves the best model if that is still to be done."""
        if self._best_is_missing:
            self._write_best()

    def _write_best(self) -> None:
        best, info = self._folder.best_model, self._folder.model_info
        began = self._clock()
        writer, of_best = self._of_best()
        written = write_if_possible(best, partial(writer.save, self.best_weights))
        written = written and write_if_possible(info, of_best.write)
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
        draw_curves(self._history.rows, path, title=self._title, best=self._history.best())
