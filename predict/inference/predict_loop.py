"""One streaming pass over records: each is read, predicted and written; only its columns are kept in memory."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.predict.inference.classifier import BATCH_SIZE
from shardstream.predict.inference.prediction import RecordBatch
from shardstream.predict.inference.prediction_table import PredictionTable, PredictionTableBuilder
from shardstream.predict.inference.records import read_batches
from shardstream.train.runs.saved_model import ModelInfo


class Model(Protocol):
    """Predicts records."""

    info: ModelInfo

    def predict(self, batch: RecordBatch) -> np.ndarray:
        """Returns float32 [len(batch.records), num_classes] probabilities."""
        ...


class Writer(Protocol):
    """Consumes predictions as they are made."""

    def write(self, batch: RecordBatch, probabilities: np.ndarray) -> None:
        """Writes the next records with float32 [len(batch.records), num_classes] probabilities."""
        ...


def predict_records(
    predictor: Model,
    info: DatasetInfo,
    split_name: str,
    positions: np.ndarray,
    *,
    writer: Writer,
    on_progress: Callable[[int], None],
) -> PredictionTable:
    """Predicts the records at the ascending `positions` of a split in one pass.

    Raises:
        DatasetError: A shard is corrupt, or the model output is not probabilities.
    """
    outcomes = PredictionTableBuilder(positions, info.num_classes)
    batches = read_batches(
        info,
        split_name,
        positions,
        image_size=predictor.info.image_size,
        resize=predictor.info.resize,
        batch_size=BATCH_SIZE,
    )
    for batch in batches:
        probabilities = predictor.predict(batch)
        outcomes.add(batch, probabilities)
        writer.write(batch, probabilities)
        on_progress(len(batch.records))
    return outcomes.finish()
