"""The chosen records of a split, read in one streaming pass and decoded as training decodes them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ingest.metadata import DatasetInfo, Encoding, Resize, SplitInfo
from predict.prediction import Record, RecordBatch
from train.damage import check_shards, find_damage, naming_damage
from train.input_pipeline import decode_image, parse_example
from train.machine import usable_cores
from train.order import Blocks

_MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

# Batches that wait decoded. A batch of 32 at 300x300 is 8.6 MB.
_PREFETCHED_BATCHES = 3
_READ_BUFFER_BYTES = 2**18


def read_batches(
    info: DatasetInfo,
    split_name: str,
    positions: np.ndarray,
    *,
    image_size: int,
    resize: Resize,
    batch_size: int,
) -> Iterator[RecordBatch]:
    """Yields the records at the ascending `positions` of a split; the last batch may be shorter.

    Reads only the parts of shards that hold one of them, and holds a few batches in memory, however many there are.

    Raises:
        DatasetError: A shard is damaged or short, or a picture cannot be decoded.
    """
    split = info.split(split_name)
    firsts = np.cumsum([0, *(shard.num_examples for shard in split.shards)])
    in_shard = np.searchsorted(firsts, positions, side="right") - 1
    narrowed = _only_shards(info, split, np.unique(in_shard))
    check_shards(narrowed, split_name)
    ds = _read_runs(info, split, positions)
    ds = ds.map(_decoder(info, image_size, resize), num_parallel_calls=usable_cores(), deterministic=True)
    batches = ds.batch(batch_size).prefetch(_PREFETCHED_BATCHES).as_numpy_iterator()
    num_read = 0
    for batch in naming_damage(batches, narrowed, split_name):
        chosen = slice(num_read, num_read + len(batch["label"]))
        places = [
            (split.shards[shard].filename, int(position - firsts[shard]))
            for shard, position in zip(in_shard[chosen], positions[chosen], strict=True)
        ]
        yield _record_batch(batch, places, info.image.encoding)
        num_read = chosen.stop
    if num_read != len(positions):
        raise find_damage(narrowed, split_name)


def _only_shards(info: DatasetInfo, split: SplitInfo, numbers: np.ndarray) -> DatasetInfo:
    """Returns a dataset that has only the shards with these numbers, where damage is looked for."""
    shards = tuple(split.shards[number] for number in numbers)
    return dataclasses.replace(info, splits={split.name: dataclasses.replace(split, shards=shards)})


def _read_runs(info: DatasetInfo, split: SplitInfo, positions: np.ndarray) -> tf.data.Dataset:
    """Returns the serialized records at `positions`, reading nothing but the blocks of 16 that hold one.

    Neighbouring blocks are read in one go: all of a split is a run for each shard, and 200 of a million records
    are 200 runs of 16.
    """
    blocks = Blocks.of(split)
    starts = np.cumsum(blocks.counts) - blocks.counts
    needed = np.unique(np.searchsorted(starts, positions, side="right") - 1)
    apart = np.diff(needed, prepend=-2) != 1
    apart |= np.diff(blocks.shards[needed], prepend=-1) != 0
    firsts = np.flatnonzero(apart)
    counts = np.add.reduceat(blocks.counts[needed], firsts)
    wanted = np.concatenate(
        [np.arange(start, start + count) for start, count in zip(starts[needed[firsts]], counts, strict=True)]
    )
    paths = tf.constant([str(info.data_dir / shard.filename) for shard in split.shards])
    runs: Any = {
        "shard": blocks.shards[needed[firsts]],
        "offset": blocks.offsets[needed[firsts]],
        "count": counts,
    }

    def read_run(run: dict[str, tf.Tensor]) -> tf.data.Dataset:
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(paths, run["shard"][tf.newaxis]),
            compression_type="",
            buffer_size=_READ_BUFFER_BYTES,
            byte_offsets=run["offset"][tf.newaxis],
        )
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        # A file that is cut between two records ends like a whole one: only the count tells.
        return records.take(run["count"]).apply(tf.data.experimental.assert_cardinality(run["count"]))

    records = tf.data.Dataset.from_tensor_slices(runs).flat_map(read_run)
    flagged = tf.data.Dataset.zip(
        records, tf.data.Dataset.from_tensor_slices(np.isin(wanted, positions, assume_unique=True))
    )
    # tf.data gives the parts of a tuple as arguments, which its type hints do not know.
    kept = flagged.filter(lambda _, flag: flag)  # pyright: ignore[reportArgumentType]
    return kept.map(lambda serialized, _: serialized)


def _decoder(info: DatasetInfo, image_size: int, resize: Resize) -> Any:
    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        example = parse_example(serialized)
        pixels = decode_image(example["image"], image=info.image, image_size=image_size, resize=resize)
        return {**example, "pixels": pixels}

    return decode


def _record_batch(batch: Any, places: Sequence[tuple[str, int]], encoding: Encoding) -> RecordBatch:
    records = [
        Record(
            shard=shard,
            position=position,
            label=int(batch["label"][i]),
            source_path=batch["filename"][i].decode("utf-8", "backslashreplace"),
            source_sha256=batch["sha256"][i].decode("ascii", "backslashreplace"),
            source_height=int(batch["source_height"][i]),
            source_width=int(batch["source_width"][i]),
            encoded=batch["image"][i],
            media_type=_media_type(batch["image"][i], encoding),
        )
        for i, (shard, position) in enumerate(places)
    ]
    return RecordBatch(records=records, images=batch["pixels"])


def _media_type(encoded: bytes, encoding: Encoding) -> str | None:
    if encoding == "raw":  # Raw pixels may begin like a JPEG by chance.
        return None
    return next((kind for magic, kind in _MEDIA_TYPES.items() if encoded.startswith(magic)), None)
