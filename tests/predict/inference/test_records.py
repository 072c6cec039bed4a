import dataclasses
import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.index import split_rows
from shardstream.predict.inference.records import read_batches


def read(info, positions, *, batch_size=7, image_size=8):
    return list(
        read_batches(
            info,
            "validation",
            np.asarray(positions),
            image_size=image_size,
            resize="stretch",
            batch_size=batch_size,
        )
    )


@pytest.mark.parametrize(
    "positions",
    [
        list(range(81)),
        [0],
        [80],
        [39, 40],  # The end of one shard and the beginning of the next.
        [0, 5, 45, 69, 70, 80],
        list(range(41, 60)),
    ],
)
def test_reads_exactly_the_chosen_records_in_order(trial, positions):
    records = [record for batch in read(trial.info, positions) for record in batch.records]
    chosen = [trial.photos[position] for position in positions]
    assert [record.source_path for record in records] == [photo.path for photo in chosen]
    assert [record.label for record in records] == [photo.label for photo in chosen]
    assert [record.encoded for record in records] == [photo.encoded() for photo in chosen]


def test_records_say_where_they_are(trial):
    (batch,) = read(trial.info, [39, 40, 70])
    assert [record.id for record in batch.records] == [
        "photos-validation.tfrecord-00000-of-00003__39",
        "photos-validation.tfrecord-00001-of-00003__0",
        "photos-validation.tfrecord-00002-of-00003__0",
    ]
    record = batch.records[0]
    assert (record.source_height, record.source_width, len(record.source_sha256)) == (480, 640, 64)


def test_batches_are_full_but_the_last(trial):
    assert [len(batch.records) for batch in read(trial.info, range(17), batch_size=7)] == [7, 7, 3]


def test_pictures_are_what_the_model_shall_see(trial):
    (batch,) = read(trial.info, [0], image_size=4)
    assert (batch.images.shape, batch.images.dtype) == ((1, 4, 4, 3), np.uint8)
    assert batch.images[0].mean(axis=(0, 1)).argmax() == trial.photos[0].looks_like


def test_only_the_shards_that_hold_a_chosen_record_are_read(trial, copy_dataset):
    info = copy_dataset(trial.info)
    shards = info.splits["validation"].shards
    (info.data_dir / shards[0].filename).unlink()
    (info.data_dir / shards[2].filename).write_bytes(b"damaged")
    (batch,) = read(info, [40, 69], batch_size=32)
    assert [record.source_path for record in batch.records] == [trial.photos[40].path, trial.photos[69].path]


def test_of_a_shard_only_the_chosen_records_are_read(trial, copy_dataset):
    info = copy_dataset(trial.info)
    path = info.data_dir / info.splits["validation"].shards[0].filename
    start, end = split_rows(info, "validation")["offset"][[11, 16]]
    content = bytearray(path.read_bytes())
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    (batch,) = read(info, [16, 33, 39, 40], batch_size=32)
    assert [record.source_path for record in batch.records] == [
        trial.photos[position].path for position in (16, 33, 39, 40)
    ]


def test_a_flipped_bit_names_the_shard(trial, copy_dataset):
    info = copy_dataset(trial.info)
    path = info.data_dir / info.splits["validation"].shards[1].filename
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))}: record \\d+ has a wrong checksum"):
        read(info, range(81))


def test_a_missing_shard_is_named(trial, copy_dataset):
    info = copy_dataset(trial.info)
    path = info.data_dir / info.splits["validation"].shards[1].filename
    path.unlink()
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))}: no such shard"):
        read(info, range(81))


def test_raw_pixels_that_begin_like_a_jpeg_are_no_jpeg(tmp_path, write_dataset, photo):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class RawPhoto(photo):
        def encoded(self):
            return b"\xff\xd8\xff" * 64  # A pink picture of 8x8.

    info = write_dataset(tmp_path / "data", {"validation": [[RawPhoto(label=0, looks_like=0, path="a")]]})
    image = dataclasses.replace(info.image, encoding="raw")
    info = dataclasses.replace(info, judging=dataclasses.replace(info.judging, image=image))
    (batch,) = read(info, [0])
    assert batch.records[0].media_type is None
    assert (batch.images[0] == (255, 216, 255)).all()


def test_media_types_come_from_the_bytes(trial):
    (batch,) = read(trial.info, [0, 1])
    assert [record.media_type for record in batch.records] == ["image/png", "image/jpeg"]
