import io
import re
import shutil

import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import (
    decode_example,
    encode_entries,
    encode_example,
    frame,
    read_records,
)
from shardstream.train.data.cache import make_source
from shardstream.train.data.corruption import find_damage
from shardstream.train.data.input_pipeline import StreamedSplit, make_eval_batches, make_train_batches

SIZE = 16
SHARD = "photos-train.tfrecord-00001-of-00003"


@pytest.fixture
def info(make_dataset, tmp_path) -> DatasetInfo:
    original = make_dataset(num_train=150)
    shutil.copytree(original.data_dir, tmp_path / "copy")
    return DatasetInfo.load(tmp_path / "copy")


def flip_bit(info):
    path = info.data_dir / SHARD
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 99] ^= 4
    path.write_bytes(content)
    return f"{path}: record 25 has a wrong checksum of its content"


def flip_bit_of_a_length(info):
    path = info.data_dir / SHARD
    content = bytearray(path.read_bytes())
    content[info.split("train").shards[1].block_offsets[2]] ^= 4
    path.write_bytes(content)
    return f"{path}: record 32 has a wrong checksum of its length"


def cut_between_records(info):
    path = info.data_dir / SHARD
    # The last two records: fewer than an epoch leaves out at its end, so that its length is right without them.
    whole, end = path.stat().st_size, info.split("train").shards[1].block_offsets[3]
    path.write_bytes(path.read_bytes()[:end])
    return f"{path}: {end:,} bytes, expected {whole:,}"


def remove(info):
    (info.data_dir / SHARD).unlink()
    return f"{info.data_dir / SHARD}: no such shard"


def swap(info):
    """Another file of the same size: of its content only the length of the records is wrong."""
    path = info.data_dir / SHARD
    size = path.stat().st_size
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(bytes(size - 16))
    return rf"{path}: record (0 is cut short|(16|32|48) has a wrong checksum of its length)"


# Each returns what is said of it, as a regular expression: of several bad blocks the first one that is wanted is named.
DAMAGES = [flip_bit, flip_bit_of_a_length, cut_between_records, remove, swap]


def cut_while_reading(info):
    cut_between_records(info)
    return f"{info.data_dir / SHARD}: record 48 is cut off"


def remove_while_reading(info):
    remove(info)
    return rf"{info.data_dir / SHARD}: record (0|16|32|48) cannot be read: No such file or directory"


# What is found when the sizes were right at the start.
UNDER_WAY = {cut_between_records: cut_while_reading, remove: remove_while_reading}


def read_stream(info, source):
    return make_train_batches(source, seed=1, epoch=0, batch_size=8)


def read_evaluation(info, source):
    return make_eval_batches(source, batch_size=8)


def relabelled(records):
    """Gives the last record another label; all checksums are right."""
    features = decode_example(records[-1])
    return [*records[:-1], encode_example(encode_entries({**features, "label": (features["label"] + 1) % 3}))]


def reordered(records):
    """Makes the first record the third."""
    assert len(records[0]) == len(records[1]) == len(records[2])
    return [records[1], records[2], records[0], *records[3:]]


@pytest.mark.parametrize(("change", "number"), [(relabelled, 48), (reordered, 0)])
@pytest.mark.parametrize("read", [read_stream, read_evaluation])
def test_a_shard_that_is_whole_but_another_one_is_noticed(info, change, number, read):
    path = info.data_dir / SHARD
    content = path.read_bytes()
    records = [record.payload for record in read_records(io.BytesIO(content))]
    path.write_bytes(b"".join(map(frame, change(records))))
    assert path.stat().st_size == len(content)
    expected = f"{path}: record {number} is another one than was written here: a foreign or swapped shard; "
    with pytest.raises(DatasetError, match=f"^{re.escape(expected)}"):
        list(read(info, StreamedSplit(info, "train", image_size=SIZE)))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read", [read_stream, read_evaluation])
def test_damage_before_the_start_ends_with_the_shard_and_the_command(info, damage, read):
    expected = (
        rf"{damage(info)}; `shardstream-ingest repair IMAGES {info.data_dir}` mends it, "
        rf"`shardstream-ingest verify {info.data_dir} --deep` shows all damage"
    )
    with pytest.raises(DatasetError, match=f"^{expected}$"):
        list(read(info, StreamedSplit(info, "train", image_size=SIZE)))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read", [read_stream, read_evaluation])
def test_damage_under_way_ends_so_too(info, damage, read):
    """The sizes were right when the source was made."""
    source = StreamedSplit(info, "train", image_size=SIZE)
    batches = read(info, source) if read is read_stream else source.ordered_batches(batch_size=8)
    expected = UNDER_WAY.get(damage, damage)(info)
    with pytest.raises(DatasetError, match=expected):
        list(batches)


def test_damage_ends_the_filling_of_the_cache(info):
    expected = flip_bit(info)
    source = make_source(info, "train", tier="memory", image_size=SIZE)
    with pytest.raises(DatasetError, match=expected):
        source.complete()


def test_a_picture_that_cannot_be_decoded_is_named_as_such(make_dataset):
    info = make_dataset(picture=lambda number, label: b"not a picture")
    source = StreamedSplit(info, "train", image_size=SIZE)
    with pytest.raises(DatasetError, match=r"-of-00003: record \d+ holds a picture that cannot be decoded"):
        list(read_stream(info, source))


def test_an_epoch_that_came_up_short_without_an_error(info):
    expected = (
        f"{info.data_dir}: split 'train' came up short; `shardstream-ingest repair IMAGES {info.data_dir}`"
    )
    assert str(find_damage(info, "train")).startswith(expected)
