"""The chosen records of a split, read in one streaming pass and decoded as training decodes them."""

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image

from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.ingest.images.settings import Encoding, Resize
from shardstream.predict.inference.prediction import Record, RecordBatch
from shardstream.train.data.corruption import check_shards
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.example_features import Feature, find_features
from shardstream.train.data.record_source import place_of
from shardstream.train.data.split_reader import SplitReader
from shardstream.train.data.stream import Record as StreamRecord

_MEDIA_TYPES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}
_KEYS = {b"image/filename", b"image/sha256", b"image/source_height", b"image/source_width"}


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
    narrowed = _only_shards(info, split, positions)
    check_shards(narrowed, split_name)
    reader = SplitReader(info, split_name)
    decoder = PictureDecoder(stored=info.image, image_size=image_size, resize=resize)
    batches = reader.batches(reader.windows_of(positions), decoder, batch_size=batch_size)
    with contextlib.closing(batches):
        for batch in batches:
            records = [
                _record(info, split, record, label)
                for record, label in zip(batch.records, batch.labels.tolist(), strict=True)
            ]
            yield RecordBatch(records=records, images=batch.images)


def _only_shards(info: DatasetInfo, split: SplitInfo, positions: np.ndarray) -> DatasetInfo:
    """Returns a dataset that has only the shards that are read, so that no other one need be there."""
    ends = np.cumsum([shard.num_examples for shard in split.shards])
    shards = tuple(split.shards[i] for i in np.unique(np.searchsorted(ends, positions, side="right")))
    return dataclasses.replace(info, splits={split.name: dataclasses.replace(split, shards=shards)})


def _record(info: DatasetInfo, split: SplitInfo, record: StreamRecord, label: int) -> Record:
    image_key = info.image_key.encode()
    features = find_features(record.payload, _KEYS | {image_key})
    place = place_of(split, record.position)
    shard = split.shards[place.shard].filename
    # Records of other programs may say nothing of where they are from.
    encoded = bytes(features.pop(image_key))
    name, sha256 = (_text(features, key) for key in (b"image/filename", b"image/sha256"))
    height, width = (features.get(key) for key in (b"image/source_height", b"image/source_width"))
    if not isinstance(height, int) or not isinstance(width, int):
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


def _text(features: Mapping[bytes, Feature], key: bytes) -> str:
    value = features.get(key)
    return bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, memoryview) else ""


def media_type(encoded: bytes, encoding: Encoding) -> str | None:
    """Returns what a browser calls the format of a stored picture; None where it knows none."""
    if encoding == "raw":  # Raw pixels may begin like a JPEG by chance.
        return None
    return next((kind for magic, kind in _MEDIA_TYPES.items() if encoded.startswith(magic)), None)
