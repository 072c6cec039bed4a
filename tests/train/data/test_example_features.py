import pytest
import tensorflow as tf

from shardstream.ingest.dataset.records import RecordError, encode_entries, encode_example
from shardstream.train.data.example_features import find_features


def example(**features: list[int] | list[bytes] | list[float]) -> bytes:
    lists = {int: ("int64_list", tf.train.Int64List), bytes: ("bytes_list", tf.train.BytesList)}
    made = {}
    for name, values in features.items():
        kind, make = lists.get(type(values[0]) if values else int, ("float_list", tf.train.FloatList))
        made[name] = tf.train.Feature(**{kind: make(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def test_finds_what_is_wanted_among_others():
    payload = example(image=[b"x" * 300], boxes=[1.0, 2.0], label=[7], name=[b""], ids=[1, 2, 3])
    found = find_features(payload, (b"image", b"label", b"name", b"boxes", b"ids", b"missing"))
    assert {name: value if isinstance(value, int) else bytes(value) for name, value in found.items()} == {
        b"image": b"x" * 300,
        b"label": 7,
        b"name": b"",
    }


def test_reads_what_ingest_writes():
    payload = encode_example(encode_entries({"image": b"\x00" * 70_000, "label": 3, "image/filename": b"a"}))
    found = find_features(payload, (b"image", b"label"))
    assert (len(found[b"image"]), found[b"label"]) == (70_000, 3)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**40, 2**63 - 1, -1, -(2**63)])
def test_numbers(number):
    assert find_features(example(label=[number]), (b"label",)) == {b"label": number}


def test_an_example_may_be_empty_and_a_feature_too():
    assert find_features(example(label=[]), (b"label",)) == {}
    assert find_features(b"\x0a\x00", (b"label",)) == {}


def test_what_is_no_example_is_refused():
    whole = example(image=[b"abc"], label=[1])
    for damaged in (b"", b"no", whole[:-1], whole[5:], b"\xff" * 20, b"\x0a\x05\x0a\xff\xff\xff\xff"):
        with pytest.raises(RecordError, match=r"is no tf\.train\.Example"):
            find_features(damaged, (b"image", b"label"))
