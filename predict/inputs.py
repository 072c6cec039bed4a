"""The chosen records of a split, read in one streaming pass and decoded as training decodes them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ingest.metadata import DatasetInfo, Encoding, Resize, SplitInfo
from predict.prediction import Record
from train.damage import find_damage, naming_damage
from train.input_pipeline import decode_image, parse_example, read_records
from train.machine import usable_cores

_MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

# Batches that wait decoded. A batch of 32 at 300x300 is 8.6 MB.
_PREFETCHED_BATCHES = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RecordBatch:
    """Records with their pictures as the model sees them: uint8 [len(records), image_size, image_size, 3]."""

    records: Sequence[Record]
    images: np.ndarray


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

    Reads only the shards that hold one of them, and holds a few batches in memory, however many there are.

    Raises:
        DatasetError: A shard is damaged or short, or a picture cannot be decoded.
    """
    split = info.split(split_name)
    firsts = np.cumsum([0, *(shard.num_examples for shard in split.shards)])
    in_shard = np.searchsorted(firsts, positions, side="right") - 1
    needed = np.unique(in_shard)
    wanted = np.zeros(split.num_examples, bool)
    wanted[positions] = True
    wanted = np.concatenate([wanted[firsts[shard] : firsts[shard + 1]] for shard in needed])
    narrowed = _only_shards(info, split, needed)
    ds = _chosen(read_records(narrowed, split_name), wanted)
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
    """Returns a dataset that has only the shards with these numbers, so that no other one is read."""
    shards = tuple(split.shards[number] for number in numbers)
    return dataclasses.replace(info, splits={split.name: dataclasses.replace(split, shards=shards)})


def _chosen(records: tf.data.Dataset, wanted: np.ndarray) -> tf.data.Dataset:
    """Returns the elements where the bool array `wanted` says so."""
    flagged = tf.data.Dataset.zip(records, tf.data.Dataset.from_tensor_slices(wanted))
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
