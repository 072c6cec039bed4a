import os

import pytest
import tensorflow as tf

from shardstream.train.runs.callbacks import History
from shardstream.train.runs.tensorboard import TensorBoardLogs


@pytest.mark.parametrize("name", [b"logs", b"logs_\xbd\xc4"])
def test_figures_are_written_as_tensorboard_reads_them(tmp_path, name):
    tmp_path = tmp_path / os.fsdecode(name)
    logs = TensorBoardLogs(tmp_path, History(tmp_path / "history.csv"))
    logs.on_train_begin()
    logs.on_epoch_end(0, {"loss": 0.5, "val_loss": 0.25})
    logs.on_epoch_end(1, {"loss": 0.125, "val_loss": 0.75})
    logs.on_train_end()
    found = []
    for folder in ("train", "validation"):
        (path,) = (tmp_path / folder).iterdir()
        for record in tf.data.TFRecordDataset(os.fsencode(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.append((folder, value.tag, event.step, tf.make_ndarray(value.tensor).item()))
    assert found == [
        ("train", "epoch_loss", 0, 0.5),
        ("train", "epoch_loss", 1, 0.125),
        ("validation", "epoch_loss", 0, 0.25),
        ("validation", "epoch_loss", 1, 0.75),
    ]
