"""Datasets of many tiny records, written without ingest, to show what grows with their number."""

import hashlib
from pathlib import Path

import numpy as np

from shardstream.ingest.dataset.index import FILENAME, index_rows
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo, SplitInfo, SplitRule
from shardstream.ingest.dataset.records import CHECKSUM_BYTES, encode_entries, encode_example, frame
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings

_SIDE = 8
_RECORDS_PER_SHARD = 100_000


def write_dataset(folder: Path, count: int) -> None:
    """Writes `count` raw images of 8x8 in shards of up to 100,000; only a thousand of them are distinct."""
    folder.mkdir()
    records = [_record(number) for number in range(1000)]
    num_shards = -(-count // _RECORDS_PER_SHARD)
    shards, rows = [], []
    for number in range(num_shards):
        here = min(_RECORDS_PER_SHARD, count - number * _RECORDS_PER_SHARD)
        some = [records[i % len(records)] for i in range(here)]
        content = b"".join(some)
        filename = f"small-train.tfrecord-{number:05d}-of-{num_shards:05d}"
        (folder / filename).write_bytes(content)
        starts = np.cumsum([0, *map(len, some)])[:-1].tolist()
        shards.append(
            ShardInfo(
                filename=filename,
                num_examples=here,
                num_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
        rows.append(index_rows(starts, [record[-CHECKSUM_BYTES:] for record in some]))
    np.save(folder / FILENAME, np.concatenate(rows))
    image = ImageSettings(size=_SIDE, resize="stretch", encoding="raw", quality=95)
    DatasetInfo(
        data_dir=folder,
        name="small",
        class_names=("a", "b"),
        display_names=("a", "b"),
        version="1.0.0",
        judging=ProcessingSettings(image=image, check="full", max_pixels=1000),
        split_rule=SplitRule(seed=1, fractions={}, keep_together="duplicates", stratify=False),
        shard_bytes=1 << 27,
        splits={
            "train": SplitInfo(
                name="train", shards=tuple(shards), class_counts=(count - count // 2, count // 2)
            )
        },
        verdicts={"ok": count},
        manifest_sha256="",
    ).save(folder)


def _record(number: int) -> bytes:
    picture = np.random.default_rng(number).integers(0, 255, (_SIDE, _SIDE, 3), np.uint8)
    features: dict[str, bytes | int] = {
        "image": picture.tobytes(),
        "image/filename": b"%d.raw" % number,
        "image/sha256": b"%064d" % number,
        "image/source_height": _SIDE,
        "image/source_width": _SIDE,
        "label": number % 2,
    }
    return frame(encode_example(encode_entries(features)))
