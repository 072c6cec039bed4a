"""The stream as TensorFlow alone reads and decodes it: the plain way, to compare with and to read the shards elsewhere.

Bit for bit the batches of `input_pipeline.StreamedSplit`, for pictures that are stored at the size of the model. It
costs a tenth more processor time: TensorFlow copies a record and a picture once more at each of its steps.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK, DatasetInfo, SplitInfo
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.order import Blocks, EpochPlan, blocks_per_window, plan_epoch

# Blocks that are opened at once.
_OPEN_BLOCKS = 16
_READ_BUFFER_BYTES = 2**18


class PlainSplit:
    """A split that TensorFlow reads and decodes."""

    def __init__(self, info: DatasetInfo, split_name: str) -> None:
        """Takes a split whose pictures are all stored at one size.

        Raises:
            ConfigError: They are not: TensorFlow's resizing gives other pixels than ours.
        """
        if info.image.size is None:
            raise ConfigError(f"{info.data_dir}: pictures of differing sizes; build with --image-size")
        self.info = info
        self.split = info.split(split_name)
        self.image_size = info.image.size

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> tf.data.Dataset:
        """See `input_pipeline.ExampleSource`."""
        plan = plan_epoch(
            Blocks.of(self.split),
            blocks_per_window=blocks_per_window(self.split),
            seed=seed,
            epoch=epoch,
            start=start,
        )
        return self._decoded(read_plan(self.info, self.split, plan)).batch(batch_size, drop_remainder=True)

    def ordered_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `input_pipeline.ExampleSource`."""
        return self._decoded(read_records(self.info, self.split.name)).batch(batch_size)

    def _decoded(self, records: tf.data.Dataset) -> tf.data.Dataset:
        def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            encoded, label = _parse(serialized)
            return decode_image(encoded, self.info.image), label

        return records.map(decode, num_parallel_calls=usable_cores(), deterministic=True)


def read_records(info: DatasetInfo, split_name: str) -> tf.data.Dataset:
    """Returns the serialized examples of a split in file order, each exactly once."""
    split = info.split(split_name)
    shards: Any = {
        "path": [str(info.data_dir / shard.filename) for shard in split.shards],
        "count": np.asarray([shard.num_examples for shard in split.shards], np.int64),
    }

    def read_shard(shard: dict[str, tf.Tensor]) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(shard["path"], buffer_size=_READ_BUFFER_BYTES)
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


def _parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(serialized, features)
    return parsed["image"], tf.cast(parsed["label"], tf.int32)


def decode_image(encoded: tf.Tensor, stored: ImageSettings) -> tf.Tensor:
    """Returns one stored picture as uint8 [size, size, 3], RGB."""
    shape = [stored.size, stored.size, 3]
    if stored.encoding == "raw":
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape)
    # TensorFlow's default is a faster transform that is up to 20 levels off. The operation takes PNG as well.
    return tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"), shape)
