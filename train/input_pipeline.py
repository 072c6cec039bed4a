"""Shards in, batches of uint8 pictures out.

Two ways to the same batches: `StreamedSplit` here reads and decodes as it goes, `cache.CachedSplit` has
decoded before. `make_train_dataset` and `make_eval_dataset` make batches for the loop of either.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ingest.errors import DatasetError
from ingest.metadata import RECORDS_PER_BLOCK, DatasetInfo, ImageSettings, Resize, SplitInfo
from train.damage import check_shards, naming_damage
from train.machine import usable_cores
from train.order import Blocks, EpochPlan, blocks_per_window, plan_epoch, stream_order
from train.share import WHOLE, Share, eval_steps, steps_per_epoch

# Blocks that are opened at once. Reading is cheap beside decoding: more helps only on slow disks.
_OPEN_BLOCKS = 16
_READ_BUFFER_BYTES = 2**18
# Batches that wait decoded. A batch of 32 at 300x300 is 8.6 MB.
_PREFETCHED_BATCHES = 3


class ExampleSource(Protocol):
    """A split that gives its pictures in batches."""

    @property
    def split(self) -> SplitInfo:
        """What the batches come from: where several workers train, this one's share of it."""
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

    def records(self, *, seed: int, epoch: int, start: int, count: int) -> tf.data.Dataset:
        """Returns the serialized examples `start` to `start` + `count` of an epoch, in any order."""
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
    size = source.image_size

    def pad(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        missing = per_replica - tf.shape(labels)[0]
        at_the_end = tf.stack([0, missing])
        weights = tf.pad(tf.ones_like(labels, tf.float32), at_the_end[tf.newaxis])
        images = tf.pad(images, tf.pad(at_the_end[tf.newaxis], [[0, 3], [0, 0]]))
        return (
            tf.ensure_shape(images, [per_replica, size, size, 3]),
            tf.ensure_shape(tf.pad(labels, at_the_end[tf.newaxis]), [per_replica]),
            tf.ensure_shape(weights, [per_replica]),
        )

    nothing = (tf.zeros([0, size, size, 3], tf.uint8), tf.zeros([0], tf.int32))
    batches = source.ordered_batches(batch_size=per_replica)
    batches = batches.concatenate(tf.data.Dataset.from_tensors(nothing).repeat()).take(num_batches)
    return _finish(batches.map(pad), cardinality=num_batches)


def record_names(
    source: ExampleSource, info: DatasetInfo, *, seed: int, epoch: int, start: int, count: int
) -> list[str]:
    """Returns the sorted file names of the examples `start` to `start` + `count` of an epoch."""
    records = source.records(seed=seed, epoch=epoch, start=start, count=count)
    examples = map(parse_example, naming_damage(records, info, source.split.name))
    names: list[bytes] = [example["filename"].numpy() for example in examples]  # pyright: ignore[reportAssignmentType]
    return sorted(name.decode("utf-8", "surrogateescape") for name in names)


def _finish(batches: tf.data.Dataset, *, cardinality: int) -> tf.data.Dataset:
    # A dataset that came up short would end an epoch early in silence: this makes it an error.
    batches = batches.apply(tf.data.experimental.assert_cardinality(cardinality))
    options = tf.data.Options()
    options.deterministic = True  # The default, but the promise of a pure order hangs on it.
    # All parallelism here is fixed: AUTOTUNE has been seen to settle on one core of two.
    options.autotune.enabled = False
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
        window_bytes: int | None = None,
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
        self._blocks = Blocks.of(self.split)
        self._blocks_per_window = (
            blocks_per_window(self.split)
            if window_bytes is None
            else blocks_per_window(self.split, window_bytes)
        )

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        records = read_plan(self.info, self.split, self._plan(seed, epoch, start))
        return self._decoded(records).batch(batch_size, drop_remainder=True)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """Returns the positions in the split, int64 [num_examples], in the order of `shuffled_batches`."""
        return stream_order(self._plan(seed, epoch, 0))

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        return self._decoded(read_records(self.info, self.split.name, self.share)).batch(batch_size)

    def records(self, *, seed: int, epoch: int, start: int, count: int) -> tf.data.Dataset:
        """See `ExampleSource`."""
        return read_plan(self.info, self.split, self._plan(seed, epoch, start)).take(count)

    def _plan(self, seed: int, epoch: int, start: int) -> EpochPlan:
        return plan_epoch(
            self._blocks, blocks_per_window=self._blocks_per_window, seed=seed, epoch=epoch, start=start
        )

    def _decoded(self, records: tf.data.Dataset) -> tf.data.Dataset:
        settings, image_size = self.info.image, self.image_size

        def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, label = _parse_image_and_label(serialized)
            image = decode_image(encoded, image=settings, image_size=image_size, resize=settings.resize)
            return image, label

        return records.map(decode, num_parallel_calls=usable_cores(), deterministic=True)


def read_records(info: DatasetInfo, split_name: str, share: Share = WHOLE) -> tf.data.Dataset:
    """Returns the serialized examples of a split, or of a share of it, in file order, each exactly once.

    Iterate it inside `damage.naming_damage`, which turns TensorFlow's errors into a DatasetError.

    Raises:
        DatasetError: A shard is missing or has another size than it was written with.
    """
    check_shards(info, split_name)
    split = share.of(info.split(split_name))
    counts = np.asarray([shard.num_examples for shard in split.shards], np.int64)
    shards: Any = {
        "path": [str(info.data_dir / shard.filename) for shard in split.shards],
        "offset": np.asarray([shard.block_offsets[0] for shard in split.shards], np.int64),
        "count": counts,
        # All there are of a whole shard: what is there beyond its count is damage.
        "most": counts if share.num_workers > 1 else np.full_like(counts, -1),
    }

    def read_shard(shard: dict[str, tf.Tensor]) -> tf.data.Dataset:
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=shard["path"][tf.newaxis],
            compression_type="",
            buffer_size=_READ_BUFFER_BYTES,
            byte_offsets=shard["offset"][tf.newaxis],
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string)).take(shard["most"])
        return records.apply(tf.data.experimental.assert_cardinality(shard["count"]))

    records = tf.data.Dataset.from_tensor_slices(shards).flat_map(read_shard)
    return records.apply(tf.data.experimental.assert_cardinality(split.num_examples))


def read_plan(info: DatasetInfo, split: SplitInfo, plan: EpochPlan) -> tf.data.Dataset:
    """Returns the serialized examples of `plan`, a window at a time, shuffled while still encoded.

    Encoded, a window holds kilobytes for each picture, not megabytes.
    """
    paths = tf.constant([str(info.data_dir / shard.filename) for shard in split.shards])
    most = int(np.add.reduceat(plan.blocks.counts, plan.window_starts).max())

    def windows() -> Iterator[tuple[np.ndarray, ...]]:
        for blocks, order in plan.windows():
            yield blocks.shards, blocks.offsets, blocks.counts, order

    # tf.data gives the parts of a tuple as arguments, which its type hints do not know.
    def read_block(*block: Any) -> tf.data.Dataset:
        shard, offset, count = block
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(paths, shard[tf.newaxis]),
            compression_type="",
            buffer_size=_READ_BUFFER_BYTES,
            byte_offsets=offset[tf.newaxis],
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        # A file that is cut between two records ends like a whole one: only the count tells.
        return records.take(count).apply(tf.data.experimental.assert_cardinality(count))

    def read_window(*window: Any) -> tf.data.Dataset:
        *blocks, order = window
        # One block behind the other, however many are open: `order` counts so.
        records = tf.data.Dataset.from_tensor_slices(tuple(blocks)).interleave(
            read_block,
            cycle_length=_OPEN_BLOCKS,
            block_length=RECORDS_PER_BLOCK,
            num_parallel_calls=usable_cores(),
            deterministic=True,
        )
        return records.batch(most).map(lambda records: tf.gather(records, order))

    column = tf.TensorSpec([None], tf.int64)  # pyright: ignore[reportArgumentType]
    dataset = tf.data.Dataset.from_generator(windows, output_signature=(column,) * 4).flat_map(read_window)
    return dataset.prefetch(1).unbatch()


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns image (encoded), label, filename, sha256, source_height and source_width of one record."""
    keys = {
        "image": ("image", tf.string),
        "label": ("label", tf.int64),
        "filename": ("image/filename", tf.string),
        "sha256": ("image/sha256", tf.string),
        "source_height": ("image/source_height", tf.int64),
        "source_width": ("image/source_width", tf.int64),
    }
    features = {key: tf.io.FixedLenFeature([], dtype) for key, dtype in keys.values()}
    parsed = tf.io.parse_single_example(serialized, features)
    return {name: parsed[key] for name, (key, _) in keys.items()}


def _parse_image_and_label(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Training needs no names: every key that is asked for costs time in every epoch.
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(serialized, features)
    return parsed["image"], tf.cast(parsed["label"], tf.int32)


def decode_image(encoded: tf.Tensor, *, image: ImageSettings, image_size: int, resize: Resize) -> tf.Tensor:
    """Returns one stored picture as uint8 [image_size, image_size, 3], RGB."""
    if image.encoding == "raw":
        if image.size is None:
            raise DatasetError("raw pictures of differing sizes cannot be read; build with --image-size")
        pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), [image.size, image.size, 3])
    else:
        # Not decode_jpeg: a picture that had the right size already kept its own bytes, PNG among them.
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    if image.size != image_size:
        pixels = _resize(pixels, image_size, resize)
    return tf.ensure_shape(pixels, [image_size, image_size, 3])


def _resize(pixels: tf.Tensor, image_size: int, resize: Resize) -> tf.Tensor:
    target = [image_size, image_size]
    if resize == "pad":
        resized = tf.image.resize_with_pad(pixels, image_size, image_size, antialias=True)
    else:
        resized = tf.image.resize(
            _central_square(pixels) if resize == "crop" else pixels, target, antialias=True
        )
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _central_square(pixels: tf.Tensor) -> tf.Tensor:
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
