"""Evaluation: each example exactly once, on any number of replicas."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.engine.trainer import Trainer


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics over a complete split: mean cross-entropy and accuracy."""

    loss: float
    accuracy: float
    num_examples: int


def evaluate(
    trainer: Trainer,
    batches: tf.data.Dataset,
    *,
    num_examples: int,
    after_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Returns the metrics of the model of `trainer` on a split; changes no other state.

    Each of several workers evaluates its part of the batches, and all get the metrics of the complete split.

    Args:
        trainer: Trainer of the model.
        batches: (images, labels, weights) of equal shapes: padding examples have weight 0.
        num_examples: Number of examples of the split, over all workers.
        after_step: Called after each batch.

    Raises:
        DatasetError: A record is corrupt, or some examples were not seen exactly once.
    """
    trainer.evaluated.reset()
    for batch in trainer.distributed(naming_corruption(batches)):
        trainer.evaluate(batch)
        after_step()
    seen = trainer.evaluated.num_seen()
    if seen != num_examples:
        raise DatasetError(f"evaluated {seen:,} examples of a split that has {num_examples:,}")
    means = trainer.evaluated.means()
    return Evaluation(loss=means["loss"], accuracy=means["accuracy"], num_examples=seen)
