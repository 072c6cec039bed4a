import numpy as np
import pytest

from shardstream.ingest.dataset.metadata import ShardInfo, SplitInfo, block_checksums
from shardstream.ingest.dataset.records import frame
from shardstream.train.data.order import Blocks
from shardstream.train.data.shard_reader import read_block

PAYLOADS = [b"one" * 9, b"two", b"three" * 100]
FRAMED = [frame(payload) for payload in PAYLOADS]
LENGTH = sum(map(len, FRAMED))
FOREIGN = "is another one than was written here: a foreign or swapped shard"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"before" + b"".join(FRAMED) + b"behind")
    return path


def read(path, *, length=LENGTH, framed=FRAMED, out=None):
    """Reads the block of the shard `path` that `framed` was written to."""
    shard = ShardInfo(
        filename=path.name,
        num_examples=3,
        num_bytes=6 + length,
        sha256="",
        block_offsets=(6,),
        block_checksums=block_checksums([record[-4:] for record in framed]),
    )
    split = SplitInfo(name="train", shards=(shard,), class_counts=(3,))
    return read_block(path.parent, split, Blocks.of(split), 0, out)


def change(path, content):
    path.write_bytes(b"before" + content)


def test_whole_records(path):
    assert read(path) == PAYLOADS


def test_they_are_views_of_the_memory_they_are_read_to(path):
    out = np.zeros(LENGTH, np.uint8)
    records = read(path, out=out)
    assert out.tobytes() == b"".join(FRAMED)
    out[12] ^= 1
    assert bytes(records[0]) != PAYLOADS[0]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    ("part", "where"),
    [*(("length", where) for where in (0, 7, 8, 11)), *(("content", where) for where in (12, -4, -1))],
)
def test_a_damaged_record_does_not_take_others_along(path, number, part, where):
    damaged = bytearray(FRAMED[number])
    damaged[where] ^= 1
    change(path, b"".join([*FRAMED[:number], damaged, *FRAMED[number + 1 :]]))
    wrong = f"has a wrong checksum of its {part}"
    assert read(path) == [*PAYLOADS[:number], wrong, *PAYLOADS[number + 1 :]]


@pytest.mark.parametrize("where", [0, 7, 8, 11])
def test_behind_a_damaged_length_nothing_is_believed_that_was_not_written_there(path, where):
    damaged = bytearray(FRAMED[1])
    damaged[where] ^= 1
    change(path, FRAMED[0] + damaged + frame(b"TWO"))
    wrong = "has a wrong checksum of its length"
    assert read(path) == [PAYLOADS[0], wrong, wrong]


def test_a_cut_in_a_record_and_between_two(path):
    change(path, FRAMED[0] + FRAMED[1][:-1])
    assert read(path) == [PAYLOADS[0], "is cut short", "is cut off"]
    change(path, FRAMED[0] + FRAMED[1])
    assert read(path) == [*PAYLOADS[:2], "is cut off"]


def test_records_of_another_file(path):
    assert read(path, length=LENGTH + 6) == [FOREIGN] * 3
    assert read(path, framed=[FRAMED[0], frame(b"TWO"), FRAMED[2]]) == [FOREIGN] * 3
    assert read(path, framed=[FRAMED[1], FRAMED[0], FRAMED[2]]) == [FOREIGN] * 3


def test_a_file_that_is_not_there(tmp_path):
    assert read(tmp_path / "none") == ["cannot be read: No such file or directory"] * 3
