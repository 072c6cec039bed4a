import hashlib
import os
from collections.abc import Callable
from pathlib import Path

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import scan_shards
from shardstream.ingest.dataset.metadata import (
    DatasetInfo,
    ShardInfo,
    SplitInfo,
    SplitRule,
)
from shardstream.ingest.images.settings import ImageSettings, ProcessingSettings

SIZE = 16
MakeDataset = Callable[..., DatasetInfo]


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """Writes a small dataset folder in our format, without ingest."""

    def make(
        *,
        num_train: int = 70,
        num_validation: int = 21,
        num_classes: int = 3,
        image: ImageSettings | None = None,
        picture: Callable[[int, int], np.ndarray] | None = None,
    ) -> DatasetInfo:
        folder = tmp_path_factory.mktemp("data")
        image = image or ImageSettings(size=SIZE, resize="stretch", encoding="raw", quality=95)
        counts = {"train": (num_train, 3), "validation": (num_validation, 1)}
        splits = {
            name: _write_split(folder, name, count, num_shards, num_classes, image, picture or _numbered)
            for name, (count, num_shards) in counts.items()
            if count
        }
        DatasetInfo(
            data_dir=folder,
            name="photos",
            class_names=tuple(f"class{i}" for i in range(num_classes)),
            display_names=tuple(f"분류 {i}" for i in range(num_classes)),
            version="1.0.0",
            judging=ProcessingSettings(image=image, check="full", max_pixels=1000),
            split_rule=SplitRule(
                seed=1, fractions={"validation": 0.2}, keep_together="duplicates", stratify=False
            ),
            shard_bytes=1 << 20,
            splits=splits,
            verdicts={"ok": num_train + num_validation},
            manifest_sha256="",
        ).save(folder)
        info = DatasetInfo.load(folder)
        np.save(folder / INDEX, scan_shards(info, info.shards.values()))
        return info

    return make


@pytest.fixture(scope="session")
def striped(make_dataset: MakeDataset) -> DatasetInfo:
    """Pictures that a small network learns at once: noise with stripes whose direction is the class."""
    return make_dataset(num_train=192, num_validation=50, picture=_stripes)


def _numbered(number: int, label: int, size: int = SIZE) -> np.ndarray:
    """A gray picture whose first pixel says which it is."""
    pixels = np.full((size, size, 3), 10 * label, np.uint8)
    pixels[0, 0] = number // 256, number % 256, label
    return pixels


def _stripes(number: int, label: int, size: int = SIZE) -> np.ndarray:
    generator = np.random.default_rng([number, label])
    y, x = np.mgrid[:size, :size]
    waves = [np.sin(x * 1.6), np.sin(y * 1.6), np.sin((x + y) * 0.5)][label]
    noise = generator.normal(0, 20, (size, size, 3))
    return np.clip(128 + 60 * waves[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def encode() -> Callable[[np.ndarray, str], bytes]:
    return _encode


def _encode(pixels: np.ndarray, encoding: str) -> bytes:
    match encoding:
        case "raw":
            return bytes(pixels)
        case "png":
            return tf.io.encode_png(pixels).numpy()
        case _:
            return tf.io.encode_jpeg(pixels, quality=95).numpy()


def _write_split(folder, name, count, num_shards, num_classes, image, picture) -> SplitInfo:
    labels = [i % num_classes for i in range(count)]
    bounds = [count * i // num_shards for i in range(num_shards + 1)]
    shards = []
    for i in range(num_shards):
        records = [
            _record(n, labels[n], _encode(picture(n, labels[n]), image.encoding))
            for n in range(bounds[i], bounds[i + 1])
        ]
        filename = f"photos-{name}.tfrecord-{i:05d}-of-{num_shards:05d}"
        shards.append(_write_shard(folder / filename, records))
    return SplitInfo(
        name=name,
        shards=tuple(shards),
        class_counts=tuple(np.bincount(labels, minlength=num_classes).tolist()),
    )


def _record(number: int, label: int, image: bytes) -> bytes:
    feature = {"label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))}
    for key in ("image/source_height", "image/source_width"):
        feature[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number + 1]))
    strings = {"image": image, "image/filename": b"a/%d.jpg" % number, "image/sha256": b"%064d" % number}
    for key, value in strings.items():
        feature[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _write_shard(path: Path, records: list[bytes]) -> ShardInfo:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return ShardInfo(
        filename=path.name,
        num_examples=len(records),
        num_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
