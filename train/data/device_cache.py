"""Decoded pictures in the memory of the devices: only their numbers cross the bus."""

from collections.abc import Generator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardstream.train.data.cached_split import CachedSplit, in_batches, order_of_epoch
from shardstream.train.data.input_pipeline import Arrays, StreamedSplit, as_tensor
from shardstream.train.data.memory_cache import MemoryPictures


class PictureTable(keras.layers.Layer):
    """Pictures in the memory of a device: takes numbers, int [batch], and returns uint8 [batch, size, size, 3]."""

    def __init__(self, images: tf.Tensor) -> None:
        """Copies uint8 [num_examples, size, size, 3] to the device, unless it is there already."""
        super().__init__(trainable=False, dtype="uint8")
        self.images = self.add_weight(
            shape=images.shape, dtype="uint8", initializer=lambda shape, dtype: images, name="images"
        )

    def call(self, rows: Any) -> Any:
        """Returns the pictures of these numbers."""
        return keras.ops.take(self.images, rows, axis=0)


class DeviceSplit:
    """A split whose pictures lie in the memory of every device from the second epoch on.

    In the first, the stream trains and fills memory of the host, which is given back once the devices have them.
    """

    def __init__(self, stream: StreamedSplit, strategy: tf.distribute.Strategy) -> None:
        """Takes the split and the strategy over the devices."""
        self.split = stream.split
        self.share = stream.share
        self.image_size = stream.image_size
        self._stream = stream
        self._strategy = strategy
        self._filling: CachedSplit | None = CachedSplit(
            stream, MemoryPictures(self.split.num_examples, self.image_size)
        )
        self._labels = np.zeros(0, np.int32)
        self._look_ups: list[Any] = []

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource`; once the devices have the pictures, their numbers are in the place of them."""
        if epoch > 0:
            self.complete()
        if self._filling and not self._move(self._filling):
            return self._filling.shuffled_batches(seed=seed, epoch=epoch, start=start, batch_size=batch_size)
        order = self.order(seed=seed, epoch=epoch)[start:]
        return self._numbers(order[: len(order) // batch_size * batch_size], batch_size)

    def ordered_batches(self, *, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource` and `shuffled_batches`."""
        if self._filling and not self._move(self._filling):
            return self._filling.ordered_batches(batch_size=batch_size)
        return self._numbers(np.arange(self.split.num_examples), batch_size)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return order_of_epoch(self._stream, seed=seed, epoch=epoch)

    def complete(self) -> None:
        """See `ExampleSource`."""
        if self._filling:
            self._filling.complete()

    def on_devices(self, batch: Any) -> Any:
        """See `ExampleSource`."""
        parts: Any = self._strategy.experimental_local_results(batch[0])
        if parts[0].dtype == tf.uint8:
            return batch
        images = [look_up(rows) for look_up, rows in zip(self._look_ups, parts, strict=True)]
        if len(images) == self._strategy.num_replicas_in_sync == 1:
            return (images[0], *batch[1:])
        # Of several workers each has the replicas of consecutive numbers.
        distributed = self._strategy.experimental_distribute_values_from_function(
            lambda context: images[context.replica_id_in_sync_group % len(images)]
        )
        return (distributed, *batch[1:])

    def _move(self, filling: CachedSplit) -> bool:
        """Copies the pictures to the devices if all are there; returns whether they were."""
        if not filling.is_whole():
            return False
        images, self._labels = filling.arrays()
        # Not in the scope of the strategy: there all workers would get the pictures of the first.
        for device in _devices(self._strategy):
            with tf.device(device):
                self._look_ups.append(tf.function(PictureTable(as_tensor(images))))
        self._filling = None
        return True

    def _numbers(self, order: np.ndarray, batch_size: int) -> Generator[Arrays]:
        return ((rows, self._labels[rows]) for rows in in_batches(order, batch_size))


def _devices(strategy: tf.distribute.Strategy) -> Sequence[str | None]:
    """Returns those of this worker; None is the one that TensorFlow prefers."""
    return [None] if strategy.num_replicas_in_sync == 1 else strategy.extended.worker_devices
