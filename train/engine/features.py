"""Features of a frozen backbone, computed once per image and cached.

2,048 features as float16 take 4.1 kB per image: 0.41 GB for 100,000 images, 4.1 GB for a million. Features are rounded
to float16 before anything is fitted to them, so that cached and computed features are identical.
"""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import versions
from shardstream.train.models.inference import inference_function
from shardstream.train.models.pretrained import PACKAGES
from shardstream.train.models.registry import backbone_size

# Every batch is padded to this size, so that the model is compiled only once.
BATCH_SIZE = 32
DTYPE = np.float16
_LARGEST = float(np.finfo(DTYPE).max)
THUMBNAIL_SIZE = 16

# (images uint8 [batch, size, size, 3], labels int32 [batch]); a third element, if any, is file names.
Batches = Iterable[Sequence[Any]]
Extractor = Callable[[Any], np.ndarray]
# The features of a batch, and the batch.
Extracted = tuple[np.ndarray, Sequence[Any]]


def named_batches(
    data: Dataset, split: str, numbers: np.ndarray, *, image_size: int, max_bad_records: int = 0
) -> Iterator[Sequence[Any]]:
    """Yields images of a split, in batches of `BATCH_SIZE`: images, labels and file names.

    Args:
        data: The dataset.
        split: Name of the split.
        numbers: Numbers of the images among the intact ones in file order, int64, ascending.
        image_size: Height and width in pixels.
        max_bad_records: How many corrupt records may be left out.
    """
    source = data.source(split, image_size, max_bad_records=max_bad_records, with_keys=True)
    batches = source.ascending(source.bad.intact(numbers), batch_size=BATCH_SIZE)
    for images, labels, names in naming_corruption(batches):
        yield images.numpy(), labels.numpy(), names.numpy().tolist()


def features_identity(
    backbone: str, *, dataset: str, split: str, left_out: Sequence[int], image_size: int, precision: str
) -> dict[str, Any]:
    """Returns everything that determines the features of a split, as the key of the cache.

    Args:
        backbone: One of `PACKAGES`.
        dataset: Fingerprint of the dataset.
        split: Name of the split.
        left_out: Positions of the records that are skipped.
        image_size: Height and width of the images in pixels.
        precision: Dtype policy of the layers.
    """
    return {
        "dataset": dataset,
        "split": split,
        "left_out": list(left_out),
        "backbone": backbone,
        "weights": PACKAGES[backbone].sha256,
        "image_size": image_size,
        "backbone_size": backbone_size(backbone, image_size),
        "precision": precision,
        "versions": versions(),
    }


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Features of a split, in file order.

    Attributes:
        values: float16 [num_examples, num_features].
        labels: int32 [num_examples].
        thumbnails: float16 [num_examples, THUMBNAIL_SIZE * THUMBNAIL_SIZE * 3]: downscaled images, from 0 to 1.
        names: The file names, if the batches have them.
    """

    values: np.ndarray
    labels: np.ndarray
    thumbnails: np.ndarray
    names: list[str] | None = None

    @classmethod
    def empty(cls, num_examples: int, *, like: "Features") -> "Features":
        """Returns uninitialized features of `num_examples` images, as many for each as in `like`."""
        return cls(
            np.empty((num_examples, *like.values.shape[1:]), DTYPE),
            np.empty(num_examples, np.int32),
            np.empty((num_examples, *like.thumbnails.shape[1:]), DTYPE),
            [""] * num_examples if like.names is not None else None,
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Features":
        """Returns what `arrays` was called on."""
        names = arrays["names"]
        texts = names.tobytes().decode("utf-8", "surrogateescape").split("\0") if names.size else None
        return cls(arrays["values"], arrays["labels"], arrays["thumbnails"], texts)

    def arrays(self) -> dict[str, Any]:
        """Returns all attributes as arrays, for files of NumPy."""
        text = "\0".join(self.names or ()).encode("utf-8", "surrogateescape")
        return {
            "values": self.values,
            "labels": self.labels,
            "thumbnails": self.thumbnails,
            "names": np.frombuffer(text, np.uint8),
        }

    def part(self, start: int, end: int) -> "Features":
        """Returns the features of the images from number `start` to `end`, as views."""
        place = slice(start, end)
        names = self.names[place] if self.names is not None else None
        return Features(self.values[place], self.labels[place], self.thumbnails[place], names)

    def put(self, start: int, part: "Features") -> None:
        """Copies the features of consecutive images to their place, from number `start` on."""
        place = slice(start, start + len(part.labels))
        self.values[place] = part.values
        self.labels[place] = part.labels
        self.thumbnails[place] = part.thumbnails
        if self.names is not None:
            self.names[place] = part.names or [""] * len(part.labels)


def make_extractor(backbone: keras.Model, device: str | None = None) -> Extractor:
    """Returns the function from uint8 images [batch, size, size, 3] to float16 features [batch, num_features].

    Args:
        backbone: Takes images from 0 to 255 and returns features; its weights are read once, here.
        device: Name of the device that computes; TensorFlow's choice by default.
    """
    shape = [BATCH_SIZE, *backbone.input_shape[1:]]
    with tf.device(device):
        compute: Any = tf.function(inference_function(backbone), autograph=False).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8)
        )

    def extract(images: Any) -> np.ndarray:
        images = np.asarray(images)
        parts = []
        for start in range(0, len(images), BATCH_SIZE):
            part = images[start : start + BATCH_SIZE]
            padding = BATCH_SIZE - len(part)
            padded = np.pad(part, [(0, padding), (0, 0), (0, 0), (0, 0)]) if padding else part
            with tf.device(device):
                features = np.asarray(compute(tf.constant(padded)), np.float32)[: len(part)]
            parts.append(np.clip(features, -_LARGEST, _LARGEST).astype(DTYPE))
        return np.concatenate(parts)

    return extract


def extract_features(batches: Batches, extract: Extractor, *, num_examples: int) -> Features:
    """Returns the features of all images of `batches`; see `collect_features`."""
    with contextlib.closing(extract_in_turn(batches, [extract])) as extracted:
        return collect_features(extracted, num_examples=num_examples)


def extract_in_turn(batches: Batches, extractors: Sequence[Extractor]) -> Generator[Extracted]:
    """Yields each batch with its features, in order.

    Args:
        batches: Batches of images.
        extractors: One for each device: each takes every n-th batch, in a thread of its own.
    """
    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(max_workers=1)) for _ in extractors]
        pending: collections.deque[tuple[Future[np.ndarray], Sequence[Any]]] = collections.deque()
        turns = itertools.cycle(zip(threads, extractors, strict=True))
        for batch, (thread, extract) in zip(batches, turns, strict=False):
            pending.append((thread.submit(extract, batch[0]), batch))
            # One more than there are devices, so that none waits for the caller.
            if len(pending) > len(extractors):
                features, done = pending.popleft()
                yield features.result(), done
        for features, done in pending:
            yield features.result(), done


def collect_features(
    extracted: Iterable[Extracted], *, num_examples: int, after_batch: Callable[[int], None] = lambda _: None
) -> Features:
    """Returns the features of several batches as one.

    Args:
        extracted: Each batch with its features.
        num_examples: Expected number of images.
        after_batch: Called with the number of images of each batch; an exception in it ends the pass.

    Raises:
        DatasetError: The number of images is not as expected, or features are not finite.
    """
    values: np.ndarray | None = None
    labels = np.empty(num_examples, np.int32)
    thumbnails = np.empty((num_examples, THUMBNAIL_SIZE**2 * 3), DTYPE)
    names: list[str] = []
    done = 0
    for features, (images, batch_labels, *others) in extracted:
        if done + len(features) > num_examples:
            raise DatasetError(f"more than the {num_examples:,} images that there should be")
        names += _names(*others)
        if not (is_finite := np.isfinite(features).all(axis=1)).all():
            number = done + int(is_finite.argmin())
            raise DatasetError(
                f"the features of {names[number] if names else f'image number {number}'} are not finite"
            )
        if values is None:
            values = np.empty((num_examples, features.shape[1]), DTYPE)
        values[done : done + len(features)] = features
        labels[done : done + len(features)] = np.asarray(batch_labels)
        thumbnails[done : done + len(features)] = _thumbnails(images)
        done += len(features)
        after_batch(len(features))
    if values is None or done != num_examples:
        raise DatasetError(f"found {done:,} images, expected {num_examples:,}")
    return Features(values, labels, thumbnails, names or None)


def _thumbnails(images: Any) -> np.ndarray:
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    small: Any = tf.image.resize(images, size, method=tf.image.ResizeMethod.AREA)
    return (small.numpy() / 255).astype(DTYPE).reshape(len(small), -1)


def _names(names: Any = ()) -> list[str]:
    """Returns the file names of a batch, if it has them; no path has a NUL, by which they are joined in files."""
    names = np.asarray(names).tolist()
    return [bytes(name).replace(b"\0", b"?").decode("utf-8", "surrogateescape") for name in names]
