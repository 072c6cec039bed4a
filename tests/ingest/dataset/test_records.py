import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardstream.ingest.dataset.records import (
    FRAMING_BYTES,
    RecordError,
    decode_example,
    encode_entries,
    encode_example,
    frame,
    read_records,
    relabelled_lengths,
    unframe,
    with_label,
)

FEATURES = st.dictionaries(
    st.text(min_size=1, max_size=20), st.one_of(st.binary(max_size=300), st.integers(0, 2**62)), max_size=6
)


@given(FEATURES)
def test_an_example_comes_back_as_it_was(features):
    assert decode_example(encode_example(encode_entries(features))) == features


@given(FEATURES, st.integers(0, 2**40))
def test_entries_can_be_put_together_later(features, label):
    # "label" behind all others, as between the map and the reduce step.
    early = {f"image/{name}": value for name, value in features.items()}
    late = encode_entries(early) + encode_entries({"label": label})
    assert late == encode_entries({**early, "label": label})


@pytest.mark.parametrize("size", [0, 90, 16384, 2097152])
@pytest.mark.parametrize(("before", "after"), [(1, 200), (128, 127), (5, 5), (3, 20000), (999_999, 0)])
def test_the_length_with_another_label_is_known_without_the_record(size, before, after):
    # Around these sizes the number of bytes of an enclosing length changes.
    payloads = [
        encode_example(encode_entries({"image": bytes(image), "label": before}))
        for image in range(max(0, size - 60), size + 4)
    ]
    lengths = relabelled_lengths(
        np.array([len(frame(payload)) for payload in payloads], np.uint32),
        np.full(len(payloads), before, np.uint32),
        np.full(len(payloads), after, np.uint32),
    )
    assert lengths.tolist() == [len(frame(with_label(payload, after))) for payload in payloads]


def test_the_bytes_are_those_that_tensorflow_writes():
    # Golden values from TensorFlow 2.21: SerializeToString(deterministic=True) and tf.io.TFRecordWriter.
    example = encode_example(encode_entries({"image": b"\xff\xd8", "label": 300}))
    assert example.hex() == "0a220a0f0a05696d61676512060a040a02ffd80a0f0a056c6162656c12061a040a02ac02"
    assert frame(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_records_come_back_with_their_offsets(payloads):
    file = b"".join(map(frame, payloads))
    records = list(read_records(io.BytesIO(file)))
    assert [record.payload for record in records] == payloads
    for record in records:
        assert (
            unframe(file[record.offset : record.offset + len(record.payload) + FRAMING_BYTES])
            == record.payload
        )


def test_every_flipped_bit_is_noticed():
    framed = frame(b"a record")
    for position in range(len(framed)):
        for bit in range(8):
            damaged = bytearray(framed)
            damaged[position] ^= 1 << bit
            with pytest.raises(RecordError):
                unframe(bytes(damaged))
            with pytest.raises(RecordError):
                list(read_records(io.BytesIO(bytes(damaged))))


@pytest.mark.parametrize("length", range(1, len(frame(b"second"))))
def test_a_cut_inside_a_record_is_noticed(length):
    file = frame(b"first") + frame(b"second")[:length]
    with pytest.raises(RecordError, match=r"record 1 at byte 21 .*cut short"):
        list(read_records(io.BytesIO(file)))


@pytest.mark.parametrize(
    "payload",
    [b"\x00", b"\x0a\xff", encode_example(b"\x0a\x03\x0a\x01a"), struct.pack("<Q", 1 << 60)],
)
def test_what_is_not_an_example_is_refused(payload):
    with pytest.raises(RecordError, match="not an Example"):
        decode_example(payload)
