import pytest

from ingest.records import frame
from train.shard_reader import read_block

PAYLOADS = [b"one" * 9, b"two", b"three" * 100]
FRAMED = [frame(payload) for payload in PAYLOADS]
LENGTH = sum(map(len, FRAMED))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"before" + b"".join(FRAMED) + b"behind")
    return path


def change(path, content):
    path.write_bytes(b"before" + content)


def test_whole_records(path):
    assert read_block(path, 6, LENGTH, 3) == PAYLOADS


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("where", [12, -4, -1])
def test_a_damaged_record_does_not_take_others_along(path, number, where):
    damaged = bytearray(FRAMED[number])
    damaged[where] ^= 1
    change(path, b"".join([*FRAMED[:number], damaged, *FRAMED[number + 1 :]]))
    wrong = "has a wrong checksum of its content"
    assert read_block(path, 6, LENGTH, 3) == [*PAYLOADS[:number], wrong, *PAYLOADS[number + 1 :]]


@pytest.mark.parametrize("where", [0, 7, 8, 11])
def test_behind_a_damaged_length_nothing_is_found(path, where):
    damaged = bytearray(FRAMED[1])
    damaged[where] ^= 1
    change(path, FRAMED[0] + damaged + FRAMED[2])
    wrong = "has a wrong checksum of its length"
    assert read_block(path, 6, LENGTH, 3) == [PAYLOADS[0], wrong, wrong]


def test_a_cut_in_a_record_and_between_two(path):
    change(path, FRAMED[0] + FRAMED[1][:-1])
    assert read_block(path, 6, LENGTH, 3) == [PAYLOADS[0], "is cut short", "is cut off"]
    change(path, FRAMED[0] + FRAMED[1])
    assert read_block(path, 6, LENGTH, 3) == [*PAYLOADS[:2], "is cut off"]


def test_records_of_another_file(path):
    (foreign,) = set(map(type, read_block(path, 6, LENGTH + 6, 3)[2:]))
    assert foreign is str
    assert "another file" in read_block(path, 6, LENGTH + 6, 3)[2]


def test_a_file_that_is_not_there(tmp_path):
    assert read_block(tmp_path / "none", 0, 10, 2) == ["cannot be read: No such file or directory"] * 2
