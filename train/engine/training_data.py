"""Data to train and evaluate on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from shardstream.train.data.cache import Progress, Tier
from shardstream.train.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingData:
    """Data to train and evaluate on.

    Attributes:
        train_batches: Returns this worker's batches (images, labels) from a step on, counted over all epochs.
        validation_batches: Each example once, (images, labels, weights) of equal shapes.
        num_validation_examples: Number over all workers.
        steps_per_epoch: Training steps per epoch.
        batch_size: Global batch size.
        file_names: Returns the source files of the examples of a step, counted over all epochs, for errors.
    """

    train_batches: Callable[[int], tf.data.Dataset]
    validation_batches: tf.data.Dataset
    num_validation_examples: int
    steps_per_epoch: int
    batch_size: int
    file_names: Callable[[int], list[str]]


def make_training_data(
    data: Dataset,
    *,
    batch_size: int,
    seed: int,
    image_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
    cache: Tier = "none",
    cache_dir: Path | None = None,
    max_bad_records: int = 0,
    progress: Progress | None = None,
) -> TrainingData:
    """Returns the train and validation splits of `data`, decoded into the cache now; takes options of `Dataset`.

    Raises:
        ConfigError: An option is invalid.
        DatasetError: A split is missing or too small, or a record is corrupt.
        LimitError: More records are corrupt than may be skipped.
    """
    options: Any = {
        "batch_size": batch_size,
        "image_size": image_size,
        "shard": shard,
        "cache": cache,
        "cache_dir": cache_dir,
        "max_bad_records": max_bad_records,
        "progress": progress,
    }

    def train_batches(start_step: int) -> tf.data.Dataset:
        return data.train_batches(seed=seed, start_step=start_step, **options)

    train_batches(0)  # Fills the cache now, while its progress is displayed.
    num_validation = data.splits["validation"].num_examples
    if max_bad_records:
        skipped = data.bad_records("validation", max_bad_records=max_bad_records, image_size=image_size)
        num_validation -= len(skipped)
    return TrainingData(
        train_batches=train_batches,
        validation_batches=data.eval_batches("validation", pad_last_batch=True, **options),
        num_validation_examples=num_validation,
        steps_per_epoch=data.steps_per_epoch(batch_size),
        batch_size=batch_size,
        file_names=lambda step: data.file_names("train", step, batch_size=batch_size, seed=seed),
    )
