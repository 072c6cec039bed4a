"""The models of a report: its subject, and others that predict the same records."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.images.settings import ImageSettings
from shardstream.predict.inference.classifier import BATCH_SIZE, Predictor, check_same_classes, load_predictor
from shardstream.predict.inference.prediction import RecordBatch
from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.comparison import (
    Comparison,
    Cost,
    OtherPredictions,
    compare,
    correct_for_multiplicity,
)
from shardstream.predict.output.prediction_files import PredictionsFiles
from shardstream.train.data.pixels import decode_images
from shardstream.train.runs.run_folder import open_run
from shardstream.train.runs.saved_model import ModelInfo


class ComparedModel:
    """A model that predicts records, in the class order of the dataset, and is timed."""

    def __init__(self, run_dir: Path, predictor: Predictor, info: DatasetInfo, *, decode: bool) -> None:
        """Takes a model with the classes of the dataset.

        Args:
            run_dir: Its run folder.
            predictor: The model.
            info: The dataset.
            decode: Whether its input size differs from that of the batches.
        """
        self.run_dir = run_dir
        self.info = predictor.info
        self._predictor = predictor
        self._order = [predictor.info.class_names.index(name) for name in info.class_names]
        self._decode = _decoder(info.image, predictor.info) if decode else lambda batch: batch.images
        self._secs = 0.0
        self._num_batches = 0

    def predict(self, batch: RecordBatch) -> np.ndarray:
        """Returns float32 [len(batch.records), num_classes] probabilities.

        Raises:
            DatasetError: The output of the model is not a probability for each class.
        """
        seen = dataclasses.replace(batch, images=self._decode(batch))
        began = time.perf_counter()
        probabilities = self._predictor.predict(seen)
        self._secs += time.perf_counter() - began
        self._num_batches += 1
        return probabilities[:, self._order]

    @property
    def cost(self) -> Cost:
        """Returns the cost; an incomplete batch counts as a complete one, since it is padded and takes as long."""
        num_pictures = max(1, self._num_batches) * BATCH_SIZE
        return Cost(
            num_parameters=self.info.num_parameters,
            file_bytes=open_run(self.run_dir).best_model.stat().st_size,
            ms_per_picture=1000 * self._secs / num_pictures,
        )


class OtherPredictionsBuilder:
    """Collects the predictions of another model, 12 bytes per record."""

    def __init__(self, count: int) -> None:
        self._columns = {
            "predicted": np.empty(count, np.int32),
            "probabilities": np.empty(count, np.float32),
            "actual_probabilities": np.empty(count, np.float32),
        }
        self._num_added = 0

    def add(self, batch: RecordBatch, probabilities: np.ndarray) -> None:
        """Adds the next records with float32 [len(batch.records), num_classes] probabilities."""
        rows = slice(self._num_added, self._num_added + len(probabilities))
        labels = [record.label for record in batch.records]
        numbers = np.arange(len(probabilities))
        self._columns["predicted"][rows] = probabilities.argmax(axis=1)
        self._columns["probabilities"][rows] = probabilities.max(axis=1)
        self._columns["actual_probabilities"][rows] = probabilities[numbers, labels]
        self._num_added = rows.stop

    def finish(self) -> OtherPredictions:
        """Returns the columns of all added records."""
        return OtherPredictions(**self._columns)


class ModelComparison:
    """Runs other models on the records of the first one, and writes the predictions of all of them."""

    def __init__(self, others: Sequence[ComparedModel], count: int, files: PredictionsFiles | None) -> None:
        """Takes the number of records to come."""
        self._others = others
        self._builders = [OtherPredictionsBuilder(count) for _ in others]
        self._files = files

    def write(self, batch: RecordBatch, probabilities: np.ndarray) -> None:
        """Adds the next records with probabilities of the first model: float32 [len(batch.records), num_classes]."""
        said = [other.predict(batch) for other in self._others]
        for builder, of_other in zip(self._builders, said, strict=True):
            builder.add(batch, of_other)
        if self._files is not None:
            self._files.write(batch, probabilities, said)

    def compare(
        self, outcomes: PredictionTable, weights: np.ndarray, *, num_classes: int
    ) -> list[Comparison]:
        """Returns the comparison of each of the other models with the first."""
        names = short_names([other.run_dir for other in self._others])
        comparisons = [
            compare(outcomes, builder.finish(), weights, name=name, cost=other.cost, num_classes=num_classes)
            for name, other, builder in zip(names, self._others, self._builders, strict=True)
        ]
        return correct_for_multiplicity(comparisons)


def load_compared_models(run_dirs: Sequence[Path], info: DatasetInfo) -> list[ComparedModel]:
    """Loads the models of several runs; images have the size of the first one's input.

    Raises:
        DatasetError: A run has no model, or one with other classes than the dataset.
    """
    models = check_models(run_dirs, info)
    wanted = [(model.image_size, model.resize) for model in models]
    return [
        ComparedModel(run_dir, load_predictor(run_dir), info, decode=seen != wanted[0])
        for run_dir, seen in zip(run_dirs, wanted, strict=True)
    ]


def check_models(run_dirs: Sequence[Path], info: DatasetInfo) -> list[ModelInfo]:
    """Returns the metadata of the models of several runs; the first must have the class order of the dataset.

    Raises:
        DatasetError: A run has no model, or one with other classes than the dataset.
    """
    models = [ModelInfo.load(run_dir) for run_dir in run_dirs]
    check_same_classes(run_dirs[0], models[0], info)
    for run_dir, model in zip(run_dirs[1:], models[1:], strict=True):
        _check_classes(run_dir, model, info)
    return models


def short_names(run_dirs: Sequence[Path]) -> list[str]:
    """Returns the display name of each run: its folder's name if unique, else its path."""
    names = [run_dir.resolve().name for run_dir in run_dirs]
    counts = Counter(names)
    return [str(run_dir) if counts[name] > 1 else name for run_dir, name in zip(run_dirs, names, strict=True)]


def _check_classes(run_dir: Path, model: ModelInfo, info: DatasetInfo) -> None:
    # In any order: outputs are matched to classes by name.
    if sorted(model.class_names) != sorted(info.class_names):
        differing = sorted(set(model.class_names) ^ set(info.class_names))[:5]
        raise DatasetError(
            f"{run_dir}: this model cannot be compared: only one of it and {info.data_dir} has "
            f"{', '.join(map(repr, differing))}; give a run that was trained on the same classes"
        )


def _decoder(stored: ImageSettings, model: ModelInfo) -> Callable[[RecordBatch], np.ndarray]:
    """Returns a function that decodes a batch at the input size of a model, as in training."""

    def decode_batch(batch: RecordBatch) -> np.ndarray:
        encoded = [record.encoded for record in batch.records]
        return decode_images(encoded, stored, image_size=model.image_size, resize=model.resize)

    return decode_batch
