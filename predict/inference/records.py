"""Reads the selected records of a split in one streaming pass and decodes them as in training."""

import hashlib
import io
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.images.settings import Encoding, Resize
from shardstream.predict.inference.prediction import Record, RecordBatch
from shardstream.train.data.corruption import naming_corruption
from shardstream.train.data.dataset import Dataset
from shardstream.train.data.split_index import SplitIndex

_MEDIA_TYPES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}

# Placeholder size for images that are decoded but not used.
_SMALL = 8
_PATHS_BATCH = 32


def read_batches(
    info: DatasetInfo,
    split_name: str,
    positions: np.ndarray,
    *,
    image_size: int,
    resize: Resize,
    batch_size: int,
) -> Iterator[RecordBatch]:
    """Yields the records at the ascending `positions` of a split; the last batch may be smaller.

    Reads only the parts of shards that hold one of them, and keeps only a few batches in memory.

    Raises:
        DatasetError: A shard is corrupt or truncated, or an image cannot be decoded.
    """
    source = Dataset(info).source(split_name, image_size, resize=resize, with_records=True)
    first = 0
    for images, labels, serialized in naming_corruption(source.chosen(positions, batch_size=batch_size)):
        places = positions[first : first + len(labels)].tolist()
        records = [
            _record(info, source.index, position, label, example)
            for position, label, example in zip(
                places, labels.numpy().tolist(), serialized.numpy(), strict=True
            )
        ]
        first += len(records)
        yield RecordBatch(records=records, images=images.numpy())


def read_source_paths(info: DatasetInfo, split_name: str, positions: np.ndarray) -> list[str]:
    """Returns the source paths of the records at these positions of a split, in any order.

    Raises:
        DatasetError: A shard is corrupt or truncated.
    """
    ordered = np.unique(positions)
    if not len(ordered):
        return []
    batches = read_batches(
        info, split_name, ordered, image_size=_SMALL, resize="stretch", batch_size=_PATHS_BATCH
    )
    paths = [record.source_path for batch in batches for record in batch.records]
    return [paths[place] for place in np.searchsorted(ordered, positions).tolist()]


def _record(info: DatasetInfo, index: SplitIndex, position: int, label: int, serialized: bytes) -> Record:
    features = tf.train.Example.FromString(serialized).features.feature
    place = index.locate(position)
    shard = index.shards[place.shard].filename
    # Records of other programs may not name their source.
    encoded = features[info.image_key].bytes_list.value[0]
    name, sha256 = (_text(features, key) for key in ("image/filename", "image/sha256"))
    height, width = (_number(features, f"image/source_{side}") for side in ("height", "width"))
    if height is None or width is None:
        width, height = Image.open(io.BytesIO(encoded)).size
    return Record(
        shard=shard,
        position=place.number,
        label=label,
        source_path=name or f"{shard}, record {place.number}",
        source_sha256=sha256 or hashlib.sha256(encoded).hexdigest(),
        source_height=height,
        source_width=width,
        encoded=encoded,
        media_type=media_type(encoded, info.image.encoding),
    )


def _text(features: Mapping[str, tf.train.Feature], key: str) -> str:
    values = features[key].bytes_list.value if key in features else ()
    return values[0].decode("utf-8", "backslashreplace") if values else ""


def _number(features: Mapping[str, tf.train.Feature], key: str) -> int | None:
    values = features[key].int64_list.value if key in features else ()
    return int(values[0]) if values else None


def media_type(encoded: bytes, encoding: Encoding) -> str | None:
    """Returns the media type of a stored image; None if browsers cannot show it."""
    if encoding == "raw":  # Raw pixels may start like a JPEG by chance.
        return None
    return next((kind for magic, kind in _MEDIA_TYPES.items() if encoded.startswith(magic)), None)
