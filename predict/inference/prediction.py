"""A stored image, and its prediction."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# As in Keras: probabilities are clipped to this, so that no loss is infinite. The largest is 16.1.
SMALLEST_PROBABILITY = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stored image.

    Attributes:
        shard: Name of its shard.
        position: Its number in the shard, from 0.
        label: Its label.
        source_path: Path of the source file, relative to the source folder.
        source_sha256: SHA-256 of that file, in hexadecimal.
        source_height: Height of the upright source image in pixels.
        source_width: Width of the upright source image in pixels.
        encoded: The stored bytes.
        media_type: "image/jpeg" or "image/png"; None if browsers cannot show the bytes.
    """

    shard: str
    position: int
    label: int
    source_path: str
    source_sha256: str
    source_height: int
    source_width: int
    encoded: bytes
    media_type: str | None

    @property
    def id(self) -> str:
        """The id that TensorFlow Datasets gives it: "photos-validation.tfrecord-00000-of-00001__17"."""
        return f"{self.shard}__{self.position}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordBatch:
    """Records with their images as model input: uint8 [len(records), image_size, image_size, 3]."""

    records: Sequence[Record]
    images: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """Prediction for one record.

    Attributes:
        record: The stored image.
        top_labels: int32 [up to 5], the most probable classes in descending order.
        top_probabilities: float32, their probabilities.
        actual_probability: Probability of the record's label.
    """

    record: Record
    top_labels: np.ndarray
    top_probabilities: np.ndarray
    actual_probability: float

    @property
    def actual(self) -> int:
        """The label of the record."""
        return self.record.label

    @property
    def predicted(self) -> int:
        """The label with the highest probability; the first one in case of a tie."""
        return int(self.top_labels[0])

    @property
    def probability(self) -> float:
        """Probability of the predicted label."""
        return float(self.top_probabilities[0])

    @property
    def right(self) -> bool:
        """Whether the prediction is correct."""
        return self.predicted == self.actual

    @property
    def loss(self) -> float:
        """The cross-entropy, in nats."""
        return float(cross_entropy(np.array(self.actual_probability)))


def cross_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the loss in nats from the probabilities of the actual classes; never -0."""
    return -np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)) + probabilities.dtype.type(0)
