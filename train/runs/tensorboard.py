"""Metrics for TensorBoard, written without the package tensorboard."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import tensorflow as tf

from shardstream.train.runs.callbacks import History

logger = logging.getLogger(__name__)

_VALIDATION = "val_"


class TensorBoardLogs(keras.callbacks.Callback):
    """Writes the metrics of each epoch to `train/` and `validation/`, under Keras's names.

    Keras's own callback and `tf.summary.scalar` need the package tensorboard, which TensorFlow no longer installs and
    which only users who view the logs need.
    """

    def __init__(self, folder: Path, history: History) -> None:
        """Creates the files in `folder` when training starts."""
        super().__init__()
        self._folder = folder
        self._history = history
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Opens the files, and rewrites them if a run resumes."""
        self._writing(self._write_history)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes a point for each metric, or all so far if the disk was full before."""
        if self._writers:
            self._writing(lambda: self._write_epoch(epoch, logs or {}))
        else:
            self._writing(self._write_history)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Closes the files."""
        if not self._writers:
            self._writing(self._write_history)
        self._writing(lambda: [writer.close() for writer in self._writers.values()])

    def _writing(self, write: Callable[[], object]) -> None:
        try:
            write()
        except tf.errors.OpError as error:
            logger.warning(
                "%s: not written (%s); training goes on", self._folder, error.message.splitlines()[-1]
            )
            # The current content of the files is unknown.
            self._writers = {}

    def _write_history(self) -> None:
        # Rewritten: with appending, a repeated epoch would appear twice, as points cannot be removed.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writers = {
            name: tf.summary.create_file_writer(os.fsencode(self._folder / name))
            for name in ("train", "validation")
        }
        for row in self._history.rows:
            figures = {name: value for name, value in row.items() if name != "epoch"}
            self._write_epoch(int(row["epoch"]) - 1, figures)

    def _write_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer = self._writers["validation" if name.startswith(_VALIDATION) else "train"]
            with writer.as_default():
                _write_scalar(f"epoch_{name.removeprefix(_VALIDATION)}", value, epoch)
        for writer in self._writers.values():
            writer.flush()  # Running jobs can be watched.


def _write_scalar(tag: str, value: float, step: int) -> None:
    metadata = tf.compat.v1.SummaryMetadata(
        data_class=1,  # DATA_CLASS_SCALAR
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    )
    tf.summary.write(tag, tf.constant(value, tf.float32), step, metadata)
