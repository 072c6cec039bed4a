"""Figures for TensorBoard, written without it."""

from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

_VALIDATION = "val_"


class TensorBoardLogs(keras.callbacks.Callback):
    """Writes the figures of each epoch to `train/` and `validation/`, under the names Keras gives them.

    Keras's own callback and `tf.summary.scalar` want the package tensorboard, which TensorFlow no longer
    brings along and which only those need who look at the logs.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the files in `folder` when training begins."""
        super().__init__()
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Opens the files."""
        for name in ("train", "validation"):
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes a point for each figure."""
        for name, value in (logs or {}).items():
            writer = self._writers["validation" if name.startswith(_VALIDATION) else "train"]
            with writer.as_default():
                _write_scalar(f"epoch_{name.removeprefix(_VALIDATION)}", value, epoch)
        for writer in self._writers.values():
            writer.flush()  # A job that runs can be watched.

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


def _write_scalar(tag: str, value: float, step: int) -> None:
    metadata = tf.compat.v1.SummaryMetadata(
        data_class=1,  # DATA_CLASS_SCALAR
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    )
    tf.summary.write(tag, tf.constant(value, tf.float32), step, metadata)
