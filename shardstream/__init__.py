"""Folders of images in, sharded TFRecords streamed through tf.data, a Keras model and a report out.

    import shardstream

    shardstream.build_dataset("photos", "data/photos", image_size=300)
    data = shardstream.load_dataset("data/photos")
    shardstream.train_and_evaluate(data_dir="data/photos", run="runs/first", epochs=20)

Importing this package loads neither TensorFlow nor OpenCV: what needs them is imported when it is called.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardstream.ingest.common.errors import ConfigError, DatasetError, LimitError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    __version__: str
    from shardstream.predict.inference.image_classifier import ImageClassifier
    from shardstream.predict.output.result import Report
    from shardstream.train.config import TrainConfig
    from shardstream.train.data.dataset import Dataset
    from shardstream.train.runs.result import TrainResult
    from shardstream.train.runs.resume_callback import ResumeCallback

__all__ = [
    "ConfigError",
    "Dataset",
    "DatasetError",
    "LimitError",
    "MachineError",
    "ResumeCallback",
    "__version__",
    "build_dataset",
    "embed",
    "evaluate",
    "load_classifier",
    "load_dataset",
    "train_and_evaluate",
]

# Classes whose modules are imported on first use.
_LAZY = {
    "Dataset": "shardstream.train.data.dataset",
    "ResumeCallback": "shardstream.train.runs.resume_callback",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    import importlib.metadata  # A tenth of a second with a cold cache, and rarely needed.

    try:
        return importlib.metadata.version("shardstream")
    except importlib.metadata.PackageNotFoundError:  # Imported from a checkout that is not installed.
        return "0.0.0"


def build_dataset(images: str | os.PathLike[str], data: str | os.PathLike[str], **options: Any) -> "Dataset":
    """Writes the images of category folders as a dataset, as `shardstream-ingest build` does.

    Args:
        images: The folder with a sub-folder for each class.
        data: The dataset folder to create.
        options: Options of the command, in snake case: `image_size=300`, `class_names=["food", "interior"]`.

    Raises:
        ConfigError: An option has an invalid value, or does not exist.
        DatasetError: The images cannot be used.
        LimitError: More files were rejected than `max_rejected` allows.
        MachineError: The disk is full or fails; the same call resumes.
    """
    from shardstream.ingest.commands.build import build_dataset as build
    from shardstream.ingest.commands.config import BuildConfig

    build(_make_config(BuildConfig, {**options, "images": images, "data": data}))
    return load_dataset(data)


def load_dataset(
    data: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    validation_share: float | None = None,
    seed: int = 123,
) -> "Dataset":
    """Returns the dataset in the folder `data`: ours, or any written by TensorFlow Datasets.

    Args:
        data: The folder.
        cache_dir: Where scan results of TFDS folders are kept.
        validation_share: The fraction of the train split to hold out, for datasets with only a train split.
        seed: Decides which examples are held out.

    Raises:
        ConfigError: `validation_share` is given for a dataset that has a validation split.
        DatasetError: Not a dataset folder, incomplete, or corrupt.
    """
    from shardstream.train.data.dataset import load_dataset as load

    folder = None if cache_dir is None else Path(cache_dir)
    return load(Path(data), cache_dir=folder, validation_share=validation_share, seed=seed)


def train_and_evaluate(config: "TrainConfig | None" = None, /, **options: Any) -> "TrainResult":
    """Trains a model and keeps the best one in a run folder, as `shardstream-train` does.

    Args:
        config: All options at once; or give them as keyword arguments:
        options: Options of the command, in snake case; `data_dir` and `run` are required.

    Raises:
        ConfigError, DatasetError, MachineError: As in the command.
    """
    from shardstream.train.config import TrainConfig

    if config is not None and options:
        raise ConfigError("give a TrainConfig or options, not both")
    resolved: TrainConfig = _make_config(TrainConfig, options) if config is None else config
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.train.run import train_and_evaluate as train

    return train(resolved)


def embed(
    model: str | os.PathLike[str], images: "Iterable[str | os.PathLike[str] | bytes | np.ndarray]"
) -> "np.ndarray":
    """Returns the features of images, float32 [num_images, num_features].

    Args:
        model: "lite0", a backbone with weights from ImageNet, or the folder of a run.
        images: Paths, the bytes of files, or uint8 arrays [height, width, 3], RGB.

    Raises:
        ConfigError: The weights of the backbone are not installed or were modified.
        DatasetError: There is no such run, or an image cannot be decoded.
    """
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.train.embedding import embed as embed_images

    paths = (Path(image) if isinstance(image, os.PathLike) else image for image in images)
    return embed_images(os.fspath(model), paths)


def evaluate(run: str | os.PathLike[str], data: str | os.PathLike[str], **options: Any) -> "Report":
    """Returns the metrics and findings of a model on a dataset, as in a report of `shardstream-predict`.

    Nothing is written. Every image of the validation split is predicted unless options say otherwise.

    Args:
        run: The run folder, or a `.keras` file with model.json beside it.
        data: The dataset folder.
        options: `split`, `sample`, `sampling`, `batch`, `seed`, `compare`, `gallery`, `explain`, `min_accuracy` and
            `min_class_recall` of the command.

    Returns:
        `.summary.accuracy` has `.value`, `.low` and `.high`; `.metrics` is what metrics.json holds.

    Raises:
        ConfigError, DatasetError: As in the command.
    """
    from shardstream.predict.config import PredictConfig

    every = (
        not {"all", "sample", "batch"} & options.keys() and options.get("sampling", "uniform") == "uniform"
    )
    config = _make_config(PredictConfig, {"all": every, **options, "run": run, "data": data})
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.predict.evaluation import evaluate_config

    return evaluate_config(config)


def load_classifier(run: str | os.PathLike[str]) -> "ImageClassifier":
    """Returns the best model of a run folder for images in any form: `classifier.predict(["a.jpg", b"...", array])`.

    Args:
        run: The run folder, or a `.keras` file with model.json beside it.

    Raises:
        DatasetError: The run has no model, or one that would run code of its own.
    """
    from shardstream.train.startup import start_tensorflow

    start_tensorflow()
    from shardstream.predict.inference.image_classifier import load_image_classifier

    return load_image_classifier(Path(run))


def _make_config(config_type: type, options: dict[str, Any]) -> Any:
    """Returns a command's config from keyword options: paths and sequences may have any usual Python type."""
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
    from shardstream.ingest.common.option_values import option_value

    return config_type(**{name: option_value(name, hints[name], value) for name, value in values.items()})
