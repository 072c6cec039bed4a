"""Writes the results of an epoch to disk: models, history, curves. All are plain Keras callbacks."""

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

# Drawing takes a third of a second and saving a tenth: nothing in a long epoch, a lot in an epoch of a second.
_SECS_BETWEEN_DRAWINGS = 60.0
_SECS_BETWEEN_SAVINGS = 60.0
# The best model is rewritten after this multiple of the time that takes: at most 0.5 % of the time.
_MIN_SHARE = 200


class History(keras.callbacks.Callback):
    """Keeps a row of metrics for each epoch, in memory and in history.csv."""

    def __init__(self, path: Path, best_by: BestBy = BEST_BY) -> None:
        """Writes to `path` after each epoch; `best_by` is the rule the run started with."""
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._path = path
        self._best_by: BestBy = best_by

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes the current rows, of which a resumed run already has some."""
        write_if_possible(self._path, self._write)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Adds the row and rewrites the file."""
        self.rows.append({"epoch": epoch + 1, **{name: (logs or {})[name] for name in COLUMNS[1:]}})
        write_if_possible(self._path, self._write)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Writes the file a last time; a failure is an error now."""
        write_beside(self._path, self._write)

    def restore(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Takes the rows of a resumed run, which may be from a version without some columns."""
        self.rows = [dict.fromkeys(COLUMNS, math.nan) | dict(row) for row in rows]

    def best(self) -> dict[str, float]:
        """Returns the row of the best epoch, the first one in case of a tie."""
        return best_row(self.rows, self._best_by)

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(
                file, COLUMNS, extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(self.rows)


class ModelSaver(keras.callbacks.Callback):
    """Writes best.keras, the model of the best epoch, and last.keras.

    With short epochs, best.keras may lag behind until training ends or is stopped.

    Attributes:
        best_weights: Weights of the best model so far, in Keras's order; empty before the first epoch is complete.
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
        """Takes the best epoch from `history`, which must come earlier in the list of callbacks.

        Writes model.json together with the first best.keras, so that it exists only if a model does. `beginning` writes
        the model from before the first epoch, if that is of another kind.
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
        """Writes best.keras for the state that a run resumes from, which may be earlier than the file on disk."""
        if self.best_weights:
            self._write_best()
        else:
            self._folder.model_info.unlink(missing_ok=True)
            self._folder.best_model.unlink(missing_ok=True)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keeps the model if it is the best so far, and saves it unless that takes too much of the time."""
        if self._history.best()["epoch"] == epoch + 1:
            self.best_weights = self._weights()
            self._best_is_missing = True
        if self._clock() >= self._best_is_due_at:
            self.write_missing()
        if self._saving.is_due():
            write_if_possible(self._folder.last_model, partial(self._writer.save, self._weights()))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Saves the final model, and the best one if still pending."""
        self._writer.write(cast(keras.Model, self.model), self._folder.last_model)
        if self._best_is_missing:
            writer, info = self._of_best()
            write_beside(self._folder.best_model, partial(writer.save, self.best_weights))
            info.save(self._folder.path)

    def restore(self, best_weights: Sequence[np.ndarray]) -> None:
        """Takes the weights of the best model of a resumed run.

        Raises:
            DatasetError: They belong to another model.
        """
        expected = [tuple(weight.shape) for weight in self._of_best()[0].twin.weights] if best_weights else []
        if [weights.shape for weights in best_weights] != expected:
            raise DatasetError(
                "the checkpoint holds the best weights of another model; --no-resume starts over"
            )
        self.best_weights = list(best_weights)

    def replace_best(self, weights: Sequence[np.ndarray], *, temperature: float) -> None:
        """Saves the best model with calibrated weights."""
        self.best_weights, self._temperature = list(weights), temperature
        writer, info = self._of_best()
        write_beside(self._folder.best_model, partial(writer.save, self.best_weights))
        info.save(self._folder.path)

    def best_info(self) -> ModelInfo:
        """Returns the metadata of the best model."""
        return self._of_best()[1]

    def _of_best(self) -> tuple[ModelWriter, ModelInfo]:
        """Returns the writer and the metadata of the best model."""
        best = self._history.best()
        if best["epoch"]:
            return self._writer, dataclasses.replace(self._info, temperature=self._temperature)
        writer, info = self._beginning
        return writer, dataclasses.replace(info, temperature=best.get("temperature", 1.0))

    def write_missing(self) -> None:
        """Saves the best model if still pending."""
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
        self._best_is_due_at = now + _MIN_SHARE * (now - began)

    def _weights(self) -> list[np.ndarray]:
        return cast(keras.Model, self.model).get_weights()


class Curves(keras.callbacks.Callback):
    """Draws curves.png from time to time, so that a long run can be watched, and at the end."""

    def __init__(self, path: Path, history: History, title: str) -> None:
        """Draws the rows of `history`, which must come earlier in the list of callbacks."""
        super().__init__()
        self._path = path
        self._history = history
        self._title = title
        self._drawing = Every(_SECS_BETWEEN_DRAWINGS)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Draws if the last drawing is outdated."""
        if self._drawing.is_due():
            write_if_possible(self._path, self._draw)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Draws the complete run."""
        write_beside(self._path, self._draw)

    def _draw(self, path: Path) -> None:
        draw_curves(self._history.rows, path, title=self._title, best=self._history.best())
