"""A stored image, and what the model says about it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# As in Keras: a probability of 0 counts as this much, so that no loss is infinite. The largest is 16.1.
SMALLEST_PROBABILITY = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stored image.

    Attributes:
        shard: The file that holds it.
        position: Its place in that file, counted from 0.
        label: The number of its class.
        source_path: Of the photo it was made from, relative to the folder of photos.
        source_sha256: Of that photo's content, in hexadecimal.
        source_height: Of the upright photo, in pixels.
        source_width: Of the upright photo, in pixels.
        encoded: The stored bytes.
        media_type: "image/jpeg" or "image/png"; None where the bytes are not an image that a browser shows.
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
        """The name that TensorFlow Datasets gives it: "photos-validation.tfrecord-00000-of-00001__17"."""
        return f"{self.shard}__{self.position}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordBatch:
    """Records with their images as the model sees them: uint8 [len(records), image_size, image_size, 3]."""

    records: Sequence[Record]
    images: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """What the model says about one record.

    Attributes:
        record: The stored image.
        top_labels: int32 [up to 5], the top_k classes, the top_k first.
        top_probabilities: float32, of the same shape.
        actual_probability: Of the record's label.
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
        """The label of the highest probability; of equal ones the first."""
        return int(self.top_labels[0])

    @property
    def probability(self) -> float:
        """Of the predicted label."""
        return float(self.top_probabilities[0])

    @property
    def right(self) -> bool:
        """Whether the prediction is the label."""
        return self.predicted == self.actual

    @property
    def loss(self) -> float:
        """The cross-entropy, in nats."""
        return float(cross_entropy(np.array(self.actual_probability)))


def cross_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the loss in nats, of the probabilities that the actual classes were given; no loss is -0."""
    return -np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)) + probabilities.dtype.type(0)
