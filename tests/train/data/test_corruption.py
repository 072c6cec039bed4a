import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError, LimitError
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import first_rows
from shardstream.ingest.dataset.records import frame
from shardstream.ingest.images.settings import ImageSettings
from shardstream.train.data.corruption import dataset_error
from shardstream.train.data.dataset import Dataset
from shardstream.train.data.skipping import BadRecords


def bounds(data: Dataset, split: str, position: int) -> tuple[Path, int, int]:
    """Returns the file, the first byte and the byte behind a record. The index is read before anything is spoilt."""
    index = data._index(split)
    found = index.locate(position)
    return index.path(found.shard), found.start, found.end


def flip(data: Dataset, position: int, where: int, split: str = "train") -> Path:
    path, start, end = bounds(data, split, position)
    content = bytearray(path.read_bytes())
    content[start + where if where >= 0 else end + where] ^= 255
    path.write_bytes(content)
    return path


def rewrite(data: Dataset, position: int, change: Callable[[bytes], bytes], split: str = "train") -> Path:
    """Changes what a record holds, as if it had been written so: with the right checksums, in the index too."""
    path, start, end = bounds(data, split, position)
    content = path.read_bytes()
    framed = frame(change(content[start + 12 : end - 4]))
    assert len(framed) == end - start
    path.write_bytes(content[:start] + framed + content[end:])
    index = np.load(data.info.data_dir / INDEX)
    first = next(iter(data.info.split(split).shards)).filename
    index["checksum"][first_rows(data.info)[first] + position] = int.from_bytes(framed[-4:], "little")
    np.save(data.info.data_dir / INDEX, index)
    data._indexes.clear()
    return path


def sentence_of(batches: tf.data.Dataset) -> str:
    with pytest.raises(tf.errors.OpError) as caught:
        for _ in batches.take(200):
            pass
    found = dataset_error(caught.value)
    assert found is not None, caught.value
    return str(found)


WHERE = {
    "has a wrong checksum of its length": 9,
    "has a wrong checksum of its content": 100,
    "has a wrong checksum of its content (footer)": -2,
}


@pytest.mark.parametrize(("what", "where"), WHERE.items())
@pytest.mark.parametrize("position", [0, 400, 1099])
def test_a_corrupt_record_is_named(copied, what, where, position):
    path = flip(copied, position, where)
    number = position - {0: 0, 400: 366, 1099: 733}[position]
    found = sentence_of(copied.train_batches(16, seed=3))
    assert found.startswith(f"{path}: record {number} {what.partition(' (')[0]}; `shardstream-ingest repair")
    assert sentence_of(copied.eval_batches("train", batch_size=16)) == found
    with pytest.raises(DatasetError):
        copied.train_batches(16, seed=3, cache="memory")


def test_what_comes_before_a_corrupt_record_is_delivered_in_evaluation(copied, numbers_of):
    flip(copied, 90, 100, "validation")
    batches = iter(copied.eval_batches("validation", batch_size=1))
    seen = []
    with pytest.raises(tf.errors.OpError):
        for images, *_ in batches:
            seen += numbers_of(images)
    assert seen == list(range(len(seen)))


def test_a_corrupt_record_is_named_out_of_fit(copied):
    path = flip(copied, 400, 100)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(tf.errors.OpError) as caught:
        model.fit(copied.train_batches(16, seed=3), steps_per_epoch=68, epochs=2, verbose=0, shuffle=False)
    assert f"{path}: record 34 has a wrong checksum of its content" in str(caught.value)


@pytest.fixture
def jpegs(make_dataset) -> Dataset:
    image = ImageSettings(size=16, resize="stretch", encoding="jpeg", quality=95)
    return Dataset(make_dataset(num_train=70, num_validation=7, image=image))


def no_jpeg(payload: bytes) -> bytes:
    return payload.replace(b"\xff\xd8\xff", b"\xff\xd8\x00")


def no_label(payload: bytes) -> bytes:
    return payload.replace(b"\x05label", b"\x05lapel")


@pytest.mark.parametrize(("change", "reason"), [(no_jpeg, "Unknown image file format"), (no_label, "label")])
@pytest.mark.parametrize(
    ("split", "position"), [("train", 0), ("train", 30), ("train", 69), ("validation", 6)]
)
def test_a_record_that_does_not_decode_is_named(jpegs, change, reason, split, position):
    path = rewrite(jpegs, position, change, split)
    number = (
        position - (np.searchsorted([0, 23, 46], position, side="right") - 1) * 23
        if split == "train"
        else position
    )
    message = rf"{re.escape(str(path))}: record {number} cannot be decoded: .*{reason}.*; `shardstream-ingest repair"
    for batches in [
        jpegs.train_batches(7, seed=3, split=split),
        jpegs.eval_batches(split, batch_size=4),
        jpegs.eval_batches(split, batch_size=1, pad_last_batch=True),
    ]:
        assert re.match(message, sentence_of(batches))


def test_no_batch_is_delivered_without_its_examples(jpegs):
    rewrite(jpegs, 30, no_jpeg)
    batches = iter(jpegs.eval_batches("train", batch_size=4))
    for step in range(7):
        assert len(next(batches)[1]) == 4, step
    with pytest.raises(tf.errors.OpError):
        next(batches)


@pytest.mark.parametrize("kind", ["removed", "truncated", "extended", "swapped"])
def test_a_file_that_is_not_what_was_written_is_named(copied, kind):
    copied._index("train")
    first, second, _ = copied.files("train")
    if kind == "removed":
        second.unlink()
        message = "no such shard"
    elif kind == "swapped":
        content = first.read_bytes()
        records = list(tf.data.TFRecordDataset(str(first)).as_numpy_iterator())
        # As long as the second file is, and every record is intact.
        sizes = np.diff([*copied._index("train").records["offset"][366:733], second.stat().st_size]) - 16
        framed = b"".join(frame(records[0].ljust(size, b"\0")[:size]) for size in sizes)
        assert len(framed) == second.stat().st_size
        second.write_bytes(framed)
        message = "holds other records than were written here: a foreign or swapped shard"
    else:
        content = second.read_bytes()
        second.write_bytes(content[:-10] if kind == "truncated" else content + b"more")
        message = "bytes, expected"
    assert sentence_of(copied.train_batches(16, seed=3)).startswith(f"{second}: ")
    assert message in sentence_of(copied.train_batches(16, seed=3))
    assert message in sentence_of(copied.eval_batches("train", batch_size=16))


def test_a_file_that_goes_while_it_is_read_is_named(copied):
    second = copied.files("train")[1]
    batches = iter(copied.train_batches(16, seed=3))
    next(batches)
    second.unlink()
    with pytest.raises(tf.errors.OpError) as caught:
        for _ in range(1000):
            next(batches)
    assert str(dataset_error(caught.value)).startswith(f"{second}: no such shard")


BAD = [5, 6, 400, 1099]


@pytest.fixture
def spoilt(copied) -> Dataset:
    for position in BAD:
        flip(copied, position, 100)
    return copied


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_skipped_records_never_shift_the_order(numbered, spoilt, train_numbers, cache, shard):
    intact = train_numbers(numbered, 150, shard=shard)
    found = train_numbers(spoilt, 150, max_bad_records=4, cache=cache, shard=shard)
    replaced = {5: 7, 6: 7, 400: 401, 1099: 1085}
    assert found == [[replaced.get(number, number) for number in batch] for batch in intact]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_evaluation_leaves_skipped_records_out(spoilt, numbers_of, cache):
    seen = []
    for images, *_ in spoilt.eval_batches("train", batch_size=16, max_bad_records=4, cache=cache):
        seen += numbers_of(images)
    assert seen == [number for number in range(1100) if number not in BAD]


def test_more_corrupt_records_than_may_be_skipped(spoilt):
    path = spoilt.files("train")[0]
    message = (
        rf"more than 3 corrupt records, the first is {path}: record 5 has a wrong checksum of its content"
    )
    with pytest.raises(LimitError, match=message):
        spoilt.train_batches(16, seed=3, max_bad_records=3)
    spoilt.train_batches(16, seed=3, max_bad_records=4)
    with pytest.raises(LimitError, match=message):
        spoilt.train_batches(16, seed=3, max_bad_records=3)


def test_records_that_do_not_decode_are_skipped_too(jpegs):
    rewrite(jpegs, 30, no_jpeg)
    assert (
        sum(len(labels) for _, labels, _ in jpegs.eval_batches("train", batch_size=8, max_bad_records=1))
        == 69
    )
    assert len(list(jpegs.train_batches(7, seed=1, max_bad_records=1).take(30))) == 30


def test_other_errors_have_no_sentence():
    assert dataset_error(tf.errors.InvalidArgumentError(None, None, "something")) is None
    assert isinstance(
        dataset_error(tf.errors.UnknownError(None, None, "DatasetError: a\nTraceback (")), DatasetError
    )


def test_the_first_record_of_a_split_is_a_replacement_as_any_other(numbered):
    index = numbered.source("train", 16).index
    bad = BadRecords.of(index, np.arange(1, 16), ("corrupt",) * 15)  # But for the first, the block.
    assert bad.replacements.tolist() == [0] * 15
