"""Decoded splits in memory: a picture is decoded once per run, not once per epoch."""

import logging
import mmap
from collections.abc import Iterable
from typing import Literal

import numpy as np
import tensorflow as tf

from ingest.metadata import DatasetInfo, SplitInfo
from train.damage import naming_damage
from train.input_pipeline import ExampleSource, StreamedSplit
from train.machine import free_memory_bytes, usable_cores
from train.order import epoch_permutation
from train.share import WHOLE, Share

logger = logging.getLogger(__name__)

Tier = Literal["none", "memory"]
# The model, its gradients and the page cache want memory too.
_SHARE_OF_FREE_MEMORY = 0.5
_FILL_BATCH = 64


class CachedSplit:
    """A split as one uint8 array [num_examples, size, size, 3], with a true permutation for every epoch.

    It is filled before training starts. Filling it under way would give the first epoch another order than
    the others, and a run resumed in a later epoch would have to fill it first anyway; and where the CPU
    trains, decoding beside it gains nothing.
    """

    def __init__(self, stream: StreamedSplit) -> None:
        """Reads and decodes all of `stream`.

        Raises:
            DatasetError: A shard is missing, cut or damaged.
        """
        self.split = stream.split
        self.share = stream.share
        self.image_size = stream.image_size
        self._images, self._labels = _fill(stream)

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        order = self.order(seed=seed, epoch=epoch)
        return self._gathered(order[start:], batch_size, drop_remainder=True)

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        return self._gathered(np.arange(self.split.num_examples), batch_size, drop_remainder=False)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return epoch_permutation(self.split.num_examples, seed=seed, epoch=epoch)

    def _gathered(self, order: np.ndarray, batch_size: int, *, drop_remainder: bool) -> tf.data.Dataset:
        indices = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)
        return indices.map(
            lambda rows: (tf.gather(self._images, rows), tf.gather(self._labels, rows)),
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )


def _fill(stream: StreamedSplit) -> tuple[tf.Tensor, tf.Tensor]:
    shape = (stream.split.num_examples, stream.image_size, stream.image_size, 3)
    # Pages of its own: TensorFlow wants its tensors aligned to 64 bytes, and through DLPack takes this array
    # as it stands, where tf.constant would hold the split twice.
    images = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
    labels = np.empty(stream.split.num_examples, np.int32)
    batches = stream.ordered_batches(batch_size=_FILL_BATCH).prefetch(1)
    position = 0
    for some_images, some_labels in naming_damage(batches, stream.info, stream.split.name):
        end = position + len(some_labels)
        images[position:end], labels[position:end] = some_images.numpy(), some_labels.numpy()
        position = end
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__()), tf.constant(labels)


def choose_tier(
    wanted: Literal["auto", "none", "memory"], splits: Iterable[SplitInfo], image_size: int
) -> Tier:
    """Returns the tier to use, and logs in one line why where the choice is ours."""
    if wanted != "auto":
        return wanted
    needed, free = decoded_bytes(splits, image_size), free_memory_bytes()
    tier: Tier = "memory" if needed <= free * _SHARE_OF_FREE_MEMORY else "none"
    logger.info(
        "cache: %s, as the decoded pictures take %s of the %s of memory that are free",
        tier,
        _gigabytes(needed),
        _gigabytes(free),
    )
    return tier


def decoded_bytes(splits: Iterable[SplitInfo], image_size: int) -> int:
    """Returns the size of all pictures of `splits` as uint8."""
    return sum(split.num_examples for split in splits) * image_size * image_size * 3


def make_source(
    info: DatasetInfo, split_name: str, *, tier: Tier, image_size: int, share: Share = WHOLE
) -> ExampleSource:
    """Returns the share of the split of that name, read through the cache tier `tier`."""
    stream = StreamedSplit(info, split_name, image_size=image_size, share=share)
    return CachedSplit(stream) if tier == "memory" else stream


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
