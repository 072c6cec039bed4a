import hashlib

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.records import (
    decode_example,
    encode_entries,
    encode_example,
    frame,
    read_records,
)
from shardstream.ingest.dataset.validation import shard_filename
from shardstream.ingest.pipeline.record_reads import RecordPlaces
from shardstream.ingest.pipeline.shards import ShardSpec, write_shard


def test_a_shard_is_named_as_tfds_expects():
    assert shard_filename("photos", "train", 3, 16) == "photos-train.tfrecord-00003-of-00016"


def test_damaged_work_in_progress_is_noticed(tmp_path):
    record = frame(
        encode_example(encode_entries({"image": b"pixels", "image/sha256": b"ab" * 32, "label": 3}))
    )
    pictures = tmp_path / "unit.pictures"
    pictures.write_bytes(record * 40)

    def spec(name, *, digest=0xABABABABABABABAB, label=3):
        return ShardSpec(
            path=tmp_path / name,
            places=RecordPlaces(
                sources=[str(pictures)],
                source_numbers=np.zeros(40, np.uint32),
                offsets=np.arange(40, dtype=np.uint64) * len(record),
                lengths=np.full(40, len(record), np.uint32),
            ),
            digests=np.full((40, 4), digest, np.uint64),
            labels=np.full(40, label, np.uint16),
        )

    info, rows = write_shard(spec("whole"))
    content = (tmp_path / "whole").read_bytes()
    assert (info.num_bytes, info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with (tmp_path / "whole").open("rb") as file:
        found = list(read_records(file))
    assert rows["offset"].tolist() == [record.offset for record in found]
    assert rows["checksum"].tolist() == [int.from_bytes(frame(r.payload)[-4:], "little") for r in found]

    # The order of the classes may have changed since.
    write_shard(spec("relabelled", label=200))
    with (tmp_path / "relabelled").open("rb") as file:
        assert [decode_example(r.payload)["label"] for r in read_records(file)] == [200] * 40
    with pytest.raises(DatasetError, match="another record than expected"):
        write_shard(spec("foreign", digest=0xABABABABABABABAC))
    assert not (tmp_path / "foreign").exists()

    damaged = bytearray(pictures.read_bytes())
    damaged[5 * len(record) + 20] ^= 1
    pictures.write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"unit\.pictures: at byte \d+: .*wrong checksum.*makes it anew"):
        write_shard(spec("damaged"))
