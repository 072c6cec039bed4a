"""Shards in, batches of uint8 pictures out.

Two ways to the same batches: `StreamedSplit` here reads and decodes as it goes, `cache.CachedSplit` has
decoded before. `make_train_dataset` and `make_eval_dataset` make batches for the loop of either.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ingest.metadata import DatasetInfo, SplitInfo
from train.damage import carried_through_tensorflow, check_shards
from train.decode import PictureDecoder
from train.example_features import find_features
from train.machine import free_memory_bytes
from train.order import WINDOW_BYTES, EpochPlan, Window, blocks_per_window, plan_epoch, stream_order
from train.share import WHOLE, Share, eval_steps, steps_per_epoch
from train.split_reader import SplitReader
from train.stream import Record

# Batches that wait decoded. A batch of 32 at 300x300 is 8.6 MB.
_PREFETCHED_BATCHES = 2
_NAME_KEY = b"image/filename"


class ExampleSource(Protocol):
    """A split that gives its pictures in batches."""

    @property
    def split(self) -> SplitInfo:
        """What the batches come from: where several workers train, this one's share of it."""
        ...

    @property
    def share(self) -> Share:
        """Which part of the whole split that is."""
        ...

    @property
    def image_size(self) -> int:
        """Height and width of the pictures."""
        ...

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """Returns (uint8 [batch, size, size, 3], int32 [batch]) from the example number `start` of an epoch on.

        The order is a pure function of (seed, epoch). Only whole batches come.
        """
        ...

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """Returns each example once in file order, in the same form; the last batch may be shorter."""
        ...

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """Returns the positions in the split of the examples, int64 [num_examples], in the order of an epoch."""
        ...

    def on_devices(self, batch: Any) -> Any:
        """Returns a batch of the strategy with pictures in it, where it has their positions in the place of them."""
        ...

    def complete(self) -> None:
        """Reads what the first epoch left unread, where decoded pictures are kept."""
        ...


def make_train_dataset(
    source: ExampleSource,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    num_replicas: int = 1,
    start_step: int = 0,
    num_steps: int | None = None,
) -> tf.data.Dataset:
    """Returns the rest of an epoch from step `start_step` on: (images uint8, labels int32).

    Step s takes the examples from s * batch_size on; replica r of it the r-th part, so that `num_replicas`
    elements of the dataset make a step. What fills no batch is left out: it is the end of this epoch's
    permutation, and another epoch has another end. An example of N misses an epoch with the chance
    (N % batch_size) / N, and k epochs with the k-th power of it.

    Where several workers train, `source` is the share of one, `batch_size` and `num_replicas` are its part of the
    whole, and `num_steps` is what all of them can do.
    """
    num_steps = steps_per_epoch(source.split, batch_size) if num_steps is None else num_steps
    steps = num_steps - start_step
    batches = source.shuffled_batches(
        seed=seed, epoch=epoch, start=start_step * batch_size, batch_size=batch_size // num_replicas
    )
    batches = batches.take(steps * num_replicas)
    return _finish(batches, cardinality=steps * num_replicas)


def make_eval_dataset(
    source: ExampleSource, *, batch_size: int, num_replicas: int = 1, num_steps: int | None = None
) -> tf.data.Dataset:
    """Returns each example of the split once, in file order: (images uint8, labels int32, weights float32).

    All batches have the same shape and every step has one for every replica: what is missing at the end is
    black pictures of weight 0. A shorter batch fails under MirroredStrategy, or gives other numbers. Of several
    workers each gives its own share, in as many steps as the largest one takes.
    """
    per_replica = batch_size // num_replicas
    num_steps = eval_steps(source.split, batch_size) if num_steps is None else num_steps
    num_batches = num_steps * num_replicas
    batches = source.ordered_batches(batch_size=per_replica)
    # Pictures, or their positions where the devices have the pictures.
    spec: Any = batches.element_spec
    shape, dtype = spec[0].shape[1:], spec[0].dtype

    def pad(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        missing = per_replica - tf.shape(labels)[0]
        at_the_end = tf.stack([0, missing])
        weights = tf.pad(tf.ones_like(labels, tf.float32), at_the_end[tf.newaxis])
        images = tf.pad(images, tf.pad(at_the_end[tf.newaxis], [[0, len(shape)], [0, 0]]))
        return (
            tf.ensure_shape(images, [per_replica, *shape]),
            tf.ensure_shape(tf.pad(labels, at_the_end[tf.newaxis]), [per_replica]),
            tf.ensure_shape(weights, [per_replica]),
        )

    nothing = (tf.zeros([0, *shape], dtype), tf.zeros([0], tf.int32))
    batches = batches.concatenate(tf.data.Dataset.from_tensors(nothing).repeat()).take(num_batches)
    return _finish(batches.map(pad), cardinality=num_batches)


def record_names(
    source: ExampleSource, info: DatasetInfo, *, seed: int, epoch: int, start: int, count: int
) -> list[str]:
    """Returns the sorted file names of the examples `start` to `start` + `count` of an epoch."""
    positions = source.order(seed=seed, epoch=epoch)[start : start + count]
    reader = SplitReader(info, source.split.name, source.share)
    records = reader.records(reader.windows_of(np.sort(positions)))
    names = [find_features(record.payload, (_NAME_KEY,)).get(_NAME_KEY, b"") for record in records]
    return sorted(bytes(name).decode("utf-8", "surrogateescape") for name in names)  # pyright: ignore[reportArgumentType]


def _finish(batches: tf.data.Dataset, *, cardinality: int) -> tf.data.Dataset:
    # A dataset that came up short would end an epoch early in silence: this makes it an error.
    batches = batches.apply(tf.data.experimental.assert_cardinality(cardinality))
    options = tf.data.Options()
    options.deterministic = True  # The default, but the promise of a pure order hangs on it.
    # All parallelism here is fixed: AUTOTUNE has been seen to settle on one core of two.
    options.autotune.enabled = False
    # Rules nothing but what AUTOTUNE may fill, should somebody turn it on: its own figure is of the whole machine.
    options.autotune.ram_budget = free_memory_bytes() // 2
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(_PREFETCHED_BATCHES).with_options(options)


class StreamedSplit:
    """A split that is read and decoded again in every epoch."""

    def __init__(
        self,
        info: DatasetInfo,
        split_name: str,
        *,
        image_size: int,
        window_bytes: int = WINDOW_BYTES,
        share: Share = WHOLE,
    ) -> None:
        """Looks at the shards; `window_bytes` of encoded pictures are shuffled together.

        Raises:
            DatasetError: A shard is missing or has another size than it was written with.
        """
        check_shards(info, split_name)
        self.info = info
        self.split = share.of(info.split(split_name))
        self.share = share
        self.image_size = image_size
        self._reader = SplitReader(info, split_name, share)
        self._decoder = PictureDecoder(stored=info.image, image_size=image_size, resize=info.image.resize)
        self._blocks_per_window = blocks_per_window(self.split, window_bytes)

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        batches = self._batches(lambda: self._plan(seed, epoch, start).windows(), batch_size)
        shape = [batch_size, self.image_size, self.image_size, 3]

        def whole(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.ensure_shape(images, shape), tf.ensure_shape(labels, shape[:1])

        return batches.take((self.split.num_examples - start) // batch_size).map(whole)

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        return self._batches(self._reader.ordered_windows, batch_size)

    def chosen_batches(self, positions: np.ndarray, *, batch_size: int) -> tf.data.Dataset:
        """Returns the examples at `positions`, int64 and each at most once, in that order, as `ordered_batches` does.

        In any order but that of the files, some 16 records are read for each one.
        """
        return self._batches(lambda: self._reader.windows_of(positions), batch_size)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return stream_order(self._plan(seed, epoch, 0))

    def decoded(self, positions: np.ndarray) -> np.ndarray:
        """Returns the pictures at `positions`, uint8 [len(positions), size, size, 3]."""
        (batch,) = self.chosen_batches(positions, batch_size=len(positions))
        return batch[0].numpy()

    def on_devices(self, batch: Any) -> Any:
        """See `ExampleSource`."""
        return batch

    def complete(self) -> None:
        """See `ExampleSource`."""

    def records(self, *, seed: int, epoch: int) -> Generator[Record]:
        """Yields the serialized examples of an epoch in its order.

        Raises:
            DatasetError: A record is damaged.
        """
        return self._reader.records(self._plan(seed, epoch, 0).windows())

    def _plan(self, seed: int, epoch: int, start: int) -> EpochPlan:
        return plan_epoch(
            self._reader.blocks,
            blocks_per_window=self._blocks_per_window,
            seed=seed,
            epoch=epoch,
            start=start,
        )

    def _batches(self, windows: Callable[[], Iterator[Window]], batch_size: int) -> tf.data.Dataset:
        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            stream = self._reader.batches(windows(), self._decoder, batch_size=batch_size)
            with carried_through_tensorflow(), contextlib.closing(stream):
                for batch in stream:
                    yield batch.images, batch.labels

        shape = [None, self.image_size, self.image_size, 3]
        signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec(shape[:1], tf.int32))
        return tf.data.Dataset.from_generator(batches, output_signature=signature)
