"""Features of a frozen backbone, computed once per image and cached.

2,048 features as float16 take 4.1 kB per image: 0.41 GB for 100,000 images, 4.1 GB for a million. Features are rounded
to float16 before anything is fitted to them, so that cached and computed features are identical.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import open_regular
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.data.dataset import Dataset
from shardstream.train.distributed.strategy import versions
from shardstream.train.models.inference import inference_function
from shardstream.train.models.pretrained import PACKAGES
from shardstream.train.models.registry import backbone_size

logger = logging.getLogger(__name__)

# Every batch is padded to this size, so that the model is compiled only once.
BATCH_SIZE = 32
DTYPE = np.float16
_LARGEST = float(np.finfo(DTYPE).max)
# Increase when the content or format changes.
_FORMAT = 4
_SUFFIX = ".features.npz"
THUMBNAIL_SIZE = 16

# (images uint8 [batch, size, size, 3], labels int32 [batch], ...); the fourth element, if any, is file names.
Batches = Iterable[Sequence[Any]]


def named_batches(
    data: Dataset, split: str, *, image_size: int, max_bad_records: int = 0
) -> Iterator[Sequence[Any]]:
    """Yields each image of a split once, in file order: images, labels, weights and file names."""
    batches = data.eval_batches(
        split, batch_size=BATCH_SIZE, image_size=image_size, max_bad_records=max_bad_records, with_keys=True
    )
    for images, labels, weights, names in naming_corruption(batches):
        yield images.numpy(), labels.numpy(), weights.numpy(), names.numpy().tolist()


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
    names: Sequence[str] | None = None


def make_extractor(backbone: keras.Model) -> Callable[[Any], np.ndarray]:
    """Returns the function from uint8 images [batch, size, size, 3] to float16 features [batch, num_features].

    Args:
        backbone: Takes images from 0 to 255 and returns features; its weights are read once, here.
    """
    shape = [BATCH_SIZE, *backbone.input_shape[1:]]
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
            features = np.asarray(compute(tf.constant(padded)), np.float32)[: len(part)]
            parts.append(np.clip(features, -_LARGEST, _LARGEST).astype(DTYPE))
        return np.concatenate(parts)

    return extract


def extract_features(
    batches: Batches,
    extract: Callable[[Any], np.ndarray],
    *,
    num_examples: int,
    after_batch: Callable[[int], None] = lambda _: None,
) -> Features:
    """Returns the features of all images of `batches`.

    Args:
        batches: Batches with each image once.
        extract: Computes the features of a batch.
        num_examples: Expected number of images.
        after_batch: Called with the number of images so far; an exception in it ends the pass.

    Raises:
        DatasetError: The number of images is not as expected, or features are not finite.
    """
    values: np.ndarray | None = None
    labels = np.empty(num_examples, np.int32)
    thumbnails = np.empty((num_examples, THUMBNAIL_SIZE**2 * 3), DTYPE)
    names: list[str] = []
    done = 0
    for images, batch_labels, *others in batches:
        features = extract(images)
        if done + len(features) > num_examples:
            raise DatasetError(f"more than the {num_examples:,} images that there should be")
        if not np.isfinite(features).all():
            raise DatasetError(f"the features of image number {done} or one soon after it are not finite")
        if values is None:
            values = np.empty((num_examples, features.shape[1]), DTYPE)
        values[done : done + len(features)] = features
        labels[done : done + len(features)] = np.asarray(batch_labels)
        thumbnails[done : done + len(features)] = _thumbnails(images)
        names += _names(*others)
        done += len(features)
        after_batch(done)
    if values is None or done != num_examples:
        raise DatasetError(f"found {done:,} images, expected {num_examples:,}")
    return Features(values, labels, thumbnails, names or None)


def _thumbnails(images: Any) -> np.ndarray:
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    small: Any = tf.image.resize(images, size, method=tf.image.ResizeMethod.AREA)
    return (small.numpy() / 255).astype(DTYPE).reshape(len(small), -1)


def _names(_: Any = None, names: Any = ()) -> list[str]:
    """Returns the file names of a batch, which follow its weights."""
    return [bytes(name).decode("utf-8", "surrogateescape") for name in np.asarray(names).tolist()]


class FeatureCache:
    """Features on disk, in files named by a hash of everything that determines them."""

    def __init__(self, folder: Path | None) -> None:
        """Takes the folder, which is created when needed; None disables the cache."""
        self._folder = folder

    def get(self, identity: Mapping[str, Any], compute: Callable[[], Features]) -> Features:
        """Returns the features of `identity` from their file, or those of `compute`, which are then cached.

        A file that cannot be read or written only costs the time to compute them.

        Args:
            identity: What determines the features, as JSON: dataset, split, backbone, sizes, precision, versions.
            compute: Called if they are not cached.
        """
        if self._folder is None:
            return compute()
        path = self._folder / f"{_key(identity)}{_SUFFIX}"
        if found := _load(path):
            logger.info("features from %s", path)
            return found
        features = compute()
        try:
            _save(path, features)
        except OSError as error:
            logger.warning("%s: the features are not kept (%s)", path, error.strerror)
        return features


def _key(identity: Mapping[str, Any]) -> str:
    content = json.dumps({**identity, "format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _load(path: Path) -> Features | None:
    try:
        # Opened here: NumPy does not close the file of a corrupt archive.
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            values, labels, names = file["values"], file["labels"], file["names"]
            thumbnails, key = file["thumbnails"], str(file["key"])
    except FileNotFoundError:
        return None
    # A corrupt archive makes the reader raise any of ValueError, BadZipFile, KeyError, EOFError.
    except Exception as error:
        logger.warning("%s: cannot be read (%s); the features are computed again", path, error)
        return None
    if key != path.name.removesuffix(_SUFFIX):  # Copied or renamed: it belongs to other images.
        logger.warning("%s: the features of something else; they are computed again", path)
        return None
    is_valid = values.dtype == DTYPE and values.ndim == 2 and labels.dtype == np.int32
    is_valid = is_valid and thumbnails.shape == (len(values), THUMBNAIL_SIZE**2 * 3)
    is_valid = is_valid and thumbnails.dtype == DTYPE and labels.shape == values.shape[:1]
    if not is_valid or not np.isfinite(values).all() or not np.isfinite(thumbnails).all():
        logger.warning("%s: not features; they are computed again", path)
        return None
    texts = bytes(names).decode("utf-8", "surrogateescape").split("\0") if names.size else None
    if texts is not None and len(texts) != len(labels):
        return None
    return Features(values, labels, thumbnails, texts)


def _save(path: Path, features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\0".join(features.names or ()).encode("utf-8", "surrogateescape")
    names = np.frombuffer(text, np.uint8)
    # Per process, so that two processes do not write to the same file.
    beside = path.with_name(f".{path.stem}.{os.getpid()}.incomplete")
    try:
        with beside.open("wb") as file:
            np.savez(
                file,
                values=features.values,
                labels=features.labels,
                thumbnails=features.thumbnails,
                names=names,
                key=np.asarray(path.name.removesuffix(_SUFFIX)),
            )
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
