"""A split that is decoded once: by the stream, while the first epoch trains, and read by number from then on."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from train.damage import naming_damage
from train.input_pipeline import StreamedSplit
from train.machine import usable_cores
from train.order import epoch_permutation

_FILL_BATCH = 64


class Pictures(Protocol):
    """Where the decoded pictures of a split are kept, by their number in the split."""

    def is_whole(self) -> bool:
        """Returns whether all are there."""
        ...

    def missing(self) -> np.ndarray:
        """Returns the numbers of those that can still be put in, int64, ascending."""
        ...

    def put(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Keeps pictures, uint8 [batch, size, size, 3], if it can; those that are there already stay as they are."""
        ...

    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns uint8 [num_examples, size, size, 3] and int32 [num_examples], once all are there."""
        ...

    def is_checked(self) -> bool:
        """Returns whether `check` has nothing more to look at."""
        ...

    def check(self, rows: np.ndarray) -> None:
        """Sees to it that the pictures `rows` are as they were put in, and decodes anew what is damaged."""
        ...


class CachedSplit:
    """A split whose decoded pictures are kept.

    The order depends on (seed, epoch) alone, not on what is kept already: the first epoch has the order of the
    stream, all others a true permutation. So a run that is resumed, finds the pictures of an earlier run or no room
    for its own trains the same.
    """

    def __init__(self, stream: StreamedSplit, pictures: Pictures) -> None:
        """Takes the split and where its pictures are to be kept."""
        self.split = stream.split
        self.share = stream.share
        self.image_size = stream.image_size
        self._stream = stream
        self._pictures = pictures

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        order = self.order(seed=seed, epoch=epoch)[start:]
        order = order[: len(order) // batch_size * batch_size]
        if epoch > 0:
            self.complete()
        if self._pictures.is_whole():
            return self._gathered(order, batch_size)
        if epoch > 0:  # There is no room, or another process fills the cache.
            return self._stream.chosen_batches(order, batch_size=batch_size)
        batches = self._stream.shuffled_batches(seed=seed, epoch=0, start=start, batch_size=batch_size)
        return self._kept(batches, order, batch_size)

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        order = np.arange(self.split.num_examples)
        if self._pictures.is_whole():
            return self._gathered(order, batch_size)
        return self._kept(self._stream.ordered_batches(batch_size=batch_size), order, batch_size)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return order_of_epoch(self._stream, seed=seed, epoch=epoch)

    def on_devices(self, batch: Any) -> Any:
        """See `ExampleSource`."""
        return batch

    def is_whole(self) -> bool:
        """Returns whether all pictures can be read by their number."""
        return self._pictures.is_whole()

    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns all pictures and labels, once they are there. See `Pictures`."""
        return self._pictures.tensors()

    def complete(self) -> None:
        """See `ExampleSource`."""
        rows = self._pictures.missing()
        if not len(rows):
            return
        batches = self._stream.chosen_batches(rows, batch_size=_FILL_BATCH).prefetch(1)
        position = 0
        for images, labels in naming_damage(batches, self._stream.info, self.split.name):
            end = position + len(labels)
            self._pictures.put(rows[position:end], images.numpy(), labels.numpy())
            position = end

    def _kept(self, batches: tf.data.Dataset, order: np.ndarray, batch_size: int) -> tf.data.Dataset:
        def keep(batch: tuple[tf.Tensor, tf.Tensor], rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            tf.numpy_function(self._pictures.put, [rows, *batch], [])
            return batch

        return tf.data.Dataset.zip(batches, in_batches(order, batch_size)).map(keep)

    def _gathered(self, order: np.ndarray, batch_size: int) -> tf.data.Dataset:
        images, labels = self._pictures.tensors()
        rows = in_batches(order, batch_size)
        if not self._pictures.is_checked():
            rows = rows.map(self._checked)
        return rows.map(
            lambda rows: (tf.gather(images, rows), tf.gather(labels, rows)),
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )

    def _checked(self, rows: tf.Tensor) -> tf.Tensor:
        tf.numpy_function(self._pictures.check, [rows], [])
        return rows


def order_of_epoch(stream: StreamedSplit, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers of the examples, int64 [num_examples], in the order of an epoch with a cache."""
    if epoch == 0:
        return stream.order(seed=seed, epoch=0)
    return epoch_permutation(stream.split.num_examples, seed=seed, epoch=epoch)


def in_batches(order: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Returns the numbers `order` in batches, the last of which may be shorter.

    Not one by one and then batched: that would cost as much as copying the pictures at 96x96.
    """
    whole = len(order) // batch_size * batch_size
    batches = tf.data.Dataset.from_tensor_slices(order[:whole].reshape(-1, batch_size))
    rest: Any = order[whole:]
    return batches.concatenate(tf.data.Dataset.from_tensors(rest)) if len(rest) else batches
