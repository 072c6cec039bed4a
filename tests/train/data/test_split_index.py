import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.folder import open_split_index
from shardstream.train.data.split_index import SplitIndex


@pytest.fixture(scope="module")
def index(make_dataset) -> SplitIndex:
    info = make_dataset(num_train=70)
    return open_split_index(info, "train")


def payloads(index: SplitIndex) -> list[bytes]:
    paths = [str(index.path(shard)) for shard in range(len(index.shards))]
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def read(index: SplitIndex, plan) -> list[bytes]:
    records = []
    for shard, offset, count, num_bytes in zip(*plan[:4], strict=True):
        content = index.path(shard).read_bytes()[offset : offset + num_bytes]
        for _ in range(count):
            length = int.from_bytes(content[:8], "little")
            records.append(content[12 : 12 + length])
            content = content[16 + length :]
        assert not content
    return [records[place] for place in plan.order]


@pytest.mark.parametrize("max_bytes", [1, 2000, 10**9])
@pytest.mark.parametrize(
    "positions", [range(70), range(69, -1, -1), [5], [69, 0, 22, 23, 24, 46, 47], [3, 3, 4, 3], range(20, 50)]
)
def test_reads_give_the_records(index, positions, max_bytes):
    plan = index.plan_reads(np.asarray(positions, np.int64), max_bytes)
    everything = payloads(index)
    assert read(index, plan) == [everything[position] for position in positions]


def test_neighbors_are_read_together(index):
    assert index.plan_reads(np.arange(70), 10**9).counts.tolist() == [
        shard.num_examples for shard in index.shards
    ]


def test_no_record_is_read_twice(index):
    plan = index.plan_reads(np.asarray([3, 3, 4, 3]), 10**9)
    assert plan.counts.tolist() == [2]


def test_an_index_of_another_split_is_refused(index):
    with pytest.raises(DatasetError, match="the index of split 'train' has 69 records, the metadata say 70"):
        dataclasses.replace(index, records=index.records[1:])


@pytest.mark.parametrize("offset", [-1, 0, 15, 10**12])
def test_offsets_that_cannot_be_are_refused_before_anything_is_read(index, offset):
    records = np.array(index.records)
    records["offset"][1] = offset
    spoilt = dataclasses.replace(index, records=records)
    assert "the index says that its records start elsewhere than they can" in str(spoilt.offsets_error(0))
    assert index.offsets_error(0) is None


def test_a_split_that_is_a_part_of_its_files_reads_its_own_records(index):
    selected = np.asarray([0, 5, 22, 23, 24, 69])
    part = dataclasses.replace(index, selected=selected)
    everything = payloads(index)
    assert part.num_examples == 6
    plan = part.plan_reads(np.asarray([5, 0, 3]), 10**9)
    assert read(part, plan) == [everything[69], everything[0], everything[23]]
    for position, row in enumerate(selected.tolist()):
        assert part.locate(position) == index.locate(row)
    assert part.shards_of(np.arange(6)).tolist() == index.shards_of(selected).tolist()
