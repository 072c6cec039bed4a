"""Folders of images in, sharded TFRecords streamed through tf.data, a Keras model and a report out.

    import shardstream

    shardstream.build_dataset("photos", "data/photos", image_size=300)
    data = shardstream.load_dataset("data/photos")
    shardstream.train_and_evaluate(data_dir="data/photos", run="runs/first", epochs=20)

Importing this package loads neither TensorFlow nor OpenCV: what needs them is imported when it is called.
"""

import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardstream.ingest.common.errors import ConfigError, DatasetError, LimitError, MachineError

if TYPE_CHECKING:
    from shardstream.ingest.dataset.metadata import DatasetInfo
    from shardstream.train.config import TrainConfig
    from shardstream.train.runs.result import TrainResult

__all__ = [
    "ConfigError",
    "DatasetError",
    "LimitError",
    "MachineError",
    "__version__",
    "build_dataset",
    "load_dataset",
    "train_and_evaluate",
]

try:
    __version__ = importlib.metadata.version("shardstream")
except importlib.metadata.PackageNotFoundError:  # Imported from a checkout that is not installed.
    __version__ = "0.0.0"


def build_dataset(
    images: str | os.PathLike[str], data: str | os.PathLike[str], **options: Any
) -> "DatasetInfo":
    """Writes the images of category folders as a dataset, as `shardstream-ingest build` does.

    Args:
        images: The folder with a sub-folder for each class.
        data: The dataset folder to make.
        options: Those of the command, in snake case: `image_size=300`, `class_names=["food", "interior"]`.

    Raises:
        ConfigError: An option has a value that cannot be used, or there is no such option.
        DatasetError: The images cannot be used.
        LimitError: More files were rejected than `max_rejected` allows.
        MachineError: The disk is full or fails; the same call resumes.
    """
    from shardstream.ingest.commands.build import build_dataset as build
    from shardstream.ingest.commands.config import BuildConfig

    return build(_make_config(BuildConfig, {**options, "images": images, "data": data})).info


def load_dataset(data: str | os.PathLike[str]) -> "DatasetInfo":
    """Returns what the dataset folder `data` holds: ours, or any that TensorFlow Datasets wrote.

    Raises:
        DatasetError: It is not a dataset folder, not complete, or corrupt.
    """
    from shardstream.train.data.dataset import load_dataset as load

    return load(Path(data))


def train_and_evaluate(config: "TrainConfig | None" = None, /, **options: Any) -> "TrainResult":
    """Trains a model and keeps the best one in a run folder, as `shardstream-train` does.

    Args:
        config: All options at once; or give them one by one:
        options: Those of the command, in snake case; `data_dir` and `run` are required.

    Raises:
        ConfigError, DatasetError, MachineError: As the command would say.
    """
    from shardstream.train.config import TrainConfig

    if config is not None and options:
        raise ConfigError("give a TrainConfig or options, not both")
    resolved: TrainConfig = _make_config(TrainConfig, options) if config is None else config
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.train.run import train_and_evaluate as train

    return train(resolved)


def _make_config(config_type: type, options: dict[str, Any]) -> Any:
    """Returns a command's config from keyword options: paths and sequences in any form that Python has."""
    import dataclasses
    import difflib
    import typing

    known = {field.name for field in dataclasses.fields(config_type)}
    for name in options.keys() - known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{config_type.__name__}: unknown option {name!r}{hint}")
    hints = typing.get_type_hints(config_type)
    values = {
        name: Path(value)
        if isinstance(value, str | os.PathLike) and Path in (hints[name], *typing.get_args(hints[name]))
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in options.items()
    }
    missing = {
        field.name
        for field in dataclasses.fields(config_type)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    } - values.keys()
    if missing:
        raise ConfigError(f"{config_type.__name__}: missing option {', '.join(map(repr, sorted(missing)))}")
    return config_type(**values)
