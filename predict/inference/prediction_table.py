"""Predictions of many records, stored in columns: under 100 bytes per record."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from shardstream.predict.inference.image_quality import measure
from shardstream.predict.inference.prediction import RecordBatch, cross_entropy

TOP = 5

# Maximum number of distinct folders; all others count as one. Nobody reads a longer list.
_MAX_FOLDERS = 4096
_OTHER_FOLDERS = "…"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassPredictions:
    """Predicted classes of labelled images; row i of each array belongs to image i.

    Attributes:
        labels: int32, actual classes.
        top_labels: int32 [num_examples, up to 5], most probable classes in descending order, ties by label.
        top_probabilities: float32, their probabilities.
        actual_probabilities: float32, probabilities of the labels.
    """

    labels: np.ndarray
    top_labels: np.ndarray
    top_probabilities: np.ndarray
    actual_probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """int32 [num_examples], the most probable class."""
        return self.top_labels[:, 0]

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [num_examples], probability of the most probable class."""
        return self.top_probabilities[:, 0]

    @property
    def margins(self) -> np.ndarray:
        """float32 [num_examples], difference between the highest and the second highest probability."""
        if self.top_probabilities.shape[1] == 1:
            return self.probabilities
        return self.top_probabilities[:, 0] - self.top_probabilities[:, 1]

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction is correct: bool [num_examples]."""
        return self.predicted == self.labels

    @property
    def losses(self) -> np.ndarray:
        """float32 [num_examples], the cross-entropy in nats."""
        return cross_entropy(self.actual_probabilities)


def class_predictions(labels: np.ndarray, probabilities: np.ndarray) -> ClassPredictions:
    """Returns the predictions for float32 [num_examples, num_classes] probabilities of images with these labels."""
    top = top_k(probabilities)
    return ClassPredictions(
        labels=labels.astype(np.int32),
        top_labels=top.astype(np.int32),
        top_probabilities=np.take_along_axis(probabilities, top, axis=1),
        actual_probabilities=probabilities[np.arange(len(labels)), labels],
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PredictionTable(ClassPredictions):
    """Predictions of records; row i of each array belongs to record i.

    Attributes:
        positions: int64, positions of the records in their split, ascending.
        brier: float32, the squared distance of all probabilities from the one-hot label: 0 to 2.
        heights: int32, height of the upright source image in pixels.
        widths: int32, width of the same.
        brightness: float32, of the model input; see `image_quality.measure`.
        sharpness: float32, of the model input.
        folders: int32, the number of the source image's folder.
        folder_names: The folders by number.
    """

    positions: np.ndarray
    brier: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    brightness: np.ndarray
    sharpness: np.ndarray
    folders: np.ndarray
    folder_names: Sequence[str]


class PredictionTableBuilder:
    """Collects the columns of batches."""

    def __init__(self, positions: np.ndarray, num_classes: int) -> None:
        """Takes the positions of all records to come, in order."""
        count, top = len(positions), min(TOP, num_classes)
        self._folders: dict[str, int] = {}
        self._num_added = 0
        self._columns = {
            "positions": positions,
            "labels": np.empty(count, np.int32),
            "top_labels": np.empty((count, top), np.int32),
            "top_probabilities": np.empty((count, top), np.float32),
            "actual_probabilities": np.empty(count, np.float32),
            "brier": np.empty(count, np.float32),
            "heights": np.empty(count, np.int32),
            "widths": np.empty(count, np.int32),
            "brightness": np.empty(count, np.float32),
            "sharpness": np.empty(count, np.float32),
            "folders": np.empty(count, np.int32),
        }

    def add(self, batch: RecordBatch, probabilities: np.ndarray) -> None:
        """Adds the next records with float32 [len(batch.records), num_classes] probabilities."""
        records = batch.records
        labels = np.array([record.label for record in records], np.int32)
        found = class_predictions(labels, probabilities)
        brightness, sharpness = measure(batch.images)
        added = {
            "labels": labels,
            "top_labels": found.top_labels,
            "top_probabilities": found.top_probabilities,
            "actual_probabilities": found.actual_probabilities,
            "brier": np.square(probabilities).sum(axis=1) - 2 * found.actual_probabilities + 1,
            "heights": [record.source_height for record in records],
            "widths": [record.source_width for record in records],
            "brightness": brightness,
            "sharpness": sharpness,
            "folders": [self._folder(record.source_path) for record in records],
        }
        rows = slice(self._num_added, self._num_added + len(records))
        for name, values in added.items():
            self._columns[name][rows] = values
        self._num_added = rows.stop

    def finish(self) -> PredictionTable:
        """Returns the table of all added records."""
        return PredictionTable(**self._columns, folder_names=tuple(self._folders))

    def _folder(self, source_path: str) -> int:
        folder = source_path.rpartition("/")[0]
        if folder not in self._folders and len(self._folders) >= _MAX_FOLDERS:
            folder = _OTHER_FOLDERS
        return self._folders.setdefault(folder, len(self._folders))


def top_k(probabilities: np.ndarray) -> np.ndarray:
    """Returns int [rows, up to 5], the labels with the highest probabilities, ties by label."""
    top = min(TOP, probabilities.shape[1])
    if probabilities.shape[1] <= 4 * TOP:
        return np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    # Sorting a thousand classes per image would take longer than a small model.
    some = np.sort(np.argpartition(-probabilities, top - 1, axis=1)[:, :top], axis=1)
    order = np.argsort(-np.take_along_axis(probabilities, some, axis=1), axis=1, kind="stable")
    top_labels = np.take_along_axis(some, order, axis=1)
    # A partition picks any of several equal ones; the prediction is the first.
    top_labels[:, 0] = np.argmax(probabilities, axis=1)
    return top_labels
