"""Shards in, batches of uint8 pictures out.

Two ways to the same batches: `StreamedSplit` here reads and decodes as it goes, `cache.CachedSplit` has
decoded before. `make_train_batches` and `make_eval_batches` make batches for the loop of either.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.train.data.corruption import check_shards
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.example_features import find_features
from shardstream.train.data.order import (
    WINDOW_BYTES,
    EpochPlan,
    Window,
    blocks_per_window,
    plan_epoch,
    stream_order,
)
from shardstream.train.data.share import WHOLE, Share, eval_steps, steps_per_epoch
from shardstream.train.data.split_reader import SplitReader
from shardstream.train.data.stream import ALIGNMENT, Buffers, Record

_NAME_KEY = b"image/filename"

# Pictures, labels and, in evaluation, weights.
Arrays = tuple[np.ndarray, ...]
Tensors = tuple[tf.Tensor, ...]


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

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> Generator[Arrays]:
        """Returns (uint8 [batch, size, size, 3], int32 [batch]) from the example number `start` of an epoch on.

        The order is a pure function of (seed, epoch). Only whole batches come.
        """
        ...

    def ordered_batches(self, *, batch_size: int) -> Generator[Arrays]:
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


def make_train_batches(
    source: ExampleSource,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    num_replicas: int = 1,
    start_step: int = 0,
    num_steps: int | None = None,
) -> Generator[Tensors]:
    """Returns the rest of an epoch from step `start_step` on: (images uint8, labels int32).

    Step s takes the examples from s * batch_size on; replica r of it the r-th part, so that `num_replicas`
    batches make a step. What fills no batch is left out: it is the end of this epoch's permutation, and another
    epoch has another end. An example of N misses an epoch with the chance (N % batch_size) / N, and k epochs with
    the k-th power of it.

    Where several workers train, `source` is the share of one, `batch_size` and `num_replicas` are its part of the
    whole, and `num_steps` is what all of them can do.
    """
    num_steps = steps_per_epoch(source.split, batch_size) if num_steps is None else num_steps
    batches = source.shuffled_batches(
        seed=seed, epoch=epoch, start=start_step * batch_size, batch_size=batch_size // num_replicas
    )
    return _as_tensors(batches, (num_steps - start_step) * num_replicas)


def make_eval_batches(
    source: ExampleSource, *, batch_size: int, num_replicas: int = 1, num_steps: int | None = None
) -> Generator[Tensors]:
    """Returns each example of the split once, in file order: (images uint8, labels int32, weights float32).

    All batches have the same shape and every step has one for every replica: what is missing at the end is
    black pictures of weight 0. A shorter batch fails under MirroredStrategy, or gives other numbers. Of several
    workers each gives its own share, in as many steps as the largest one takes.
    """
    per_replica = batch_size // num_replicas
    num_steps = eval_steps(source.split, batch_size) if num_steps is None else num_steps
    batches = source.ordered_batches(batch_size=per_replica)
    return _as_tensors(_padded(batches, per_replica), num_steps * num_replicas)


def _padded(batches: Generator[Arrays], size: int) -> Generator[Arrays]:
    """Yields batches of `size` examples with their weights, and without end those that have none."""
    # Pictures, or their positions where the devices have the pictures.
    images, labels = np.empty(0), np.empty(0)
    with contextlib.closing(batches):
        for images, labels in batches:
            weights = np.ones(len(labels), np.float32)
            yield tuple(_lengthened(array, size) for array in (images, labels, weights))
    nothing = tuple(np.zeros([size, *a.shape[1:]], a.dtype) for a in (images, labels))
    while True:
        yield (*nothing, np.zeros(size, np.float32))


def _lengthened(array: np.ndarray, length: int) -> np.ndarray:
    if len(array) == length:
        return array
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)])


def _as_tensors(batches: Generator[Arrays], count: int) -> Generator[Tensors]:
    """Yields the first `count` batches.

    There may be fewer: whoever trains or evaluates counts what it has seen.
    """
    with contextlib.closing(batches):
        for batch in itertools.islice(batches, count):
            yield tuple(map(as_tensor, batch))


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """Returns an array of the host as it stands if its memory is aligned as TensorFlow wants it, else a copy."""
    if array.ctypes.data % ALIGNMENT == 0:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    with tf.device("CPU"):
        return tf.constant(array)


def record_names(
    source: ExampleSource, info: DatasetInfo, *, seed: int, epoch: int, start: int, count: int
) -> list[str]:
    """Returns the sorted file names of the examples `start` to `start` + `count` of an epoch."""
    positions = source.order(seed=seed, epoch=epoch)[start : start + count]
    reader = SplitReader(info, source.split.name, source.share)
    records = reader.records(reader.windows_of(np.sort(positions)))
    names = [find_features(record.payload, (_NAME_KEY,)).get(_NAME_KEY, b"") for record in records]
    return sorted(bytes(name).decode("utf-8", "surrogateescape") for name in names)  # pyright: ignore[reportArgumentType]


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

    @property
    def buffers(self) -> Buffers:
        """The memory of batches, which epochs take from one another."""
        return self._reader.buffers

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource`."""
        num_batches = (self.split.num_examples - start) // batch_size
        return self._batches(self._plan(seed, epoch, start).windows(), batch_size, num_batches)

    def ordered_batches(self, *, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource`."""
        return self._batches(self._reader.ordered_windows(), batch_size)

    def chosen_batches(self, positions: np.ndarray, *, batch_size: int) -> Generator[Arrays]:
        """Returns the examples at `positions`, int64 and each at most once, in that order, as `ordered_batches` does.

        In any order but that of the files, some 16 records are read for each one.
        """
        return self._batches(self._reader.windows_of(positions), batch_size)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return stream_order(self._plan(seed, epoch, 0))

    def decoded(self, positions: np.ndarray) -> np.ndarray:
        """Returns the pictures at `positions`, uint8 [len(positions), size, size, 3]."""
        (batch,) = self.chosen_batches(positions, batch_size=len(positions))
        return batch[0]

    def on_devices(self, batch: Any) -> Any:
        """See `ExampleSource`."""
        return batch

    def complete(self) -> None:
        """See `ExampleSource`."""

    def free_windows(self) -> None:
        """See `SplitReader`."""
        self._reader.free_windows()

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

    def _batches(
        self, windows: Iterator[Window], batch_size: int, num_batches: int | None = None
    ) -> Generator[Arrays]:
        with contextlib.closing(
            self._reader.batches(windows, self._decoder, batch_size=batch_size)
        ) as stream:
            for batch in itertools.islice(stream, num_batches):
                yield batch.images, batch.labels
