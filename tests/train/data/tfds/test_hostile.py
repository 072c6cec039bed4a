import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.data.tfds_folder import load_tfds_folder, open_tfds_index
from shardstream.train.data.tfds_index import labels_of


@pytest.fixture
def folder(tfds_folder) -> Path:
    return tfds_folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def is_train(content) -> bool:
    return content["splits"][0]["name"] == "train"


def train_split(content) -> dict[str, Any]:
    return content["splits"][0 if is_train(content) else 1]


def in_info(**values) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "dataset_info.json", lambda content: content.update(values))


def in_train(**values) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder / "dataset_info.json", lambda content: train_split(content).update(values)
    )


def in_features(**values) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder / "features.json", lambda content: content["featuresDict"]["features"].update(values)
    )


def text(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def fifo(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
FOREIGN = "evil_module.Feature"
LEGACY = {"type": LABEL, "content": {"names_file": "/dev/zero"}, "proto_cls": ""}
IN_JSON = {"pythonClassName": LABEL, "jsonFeature": {"json": json.dumps({"feature": {"type": FOREIGN}})}}
SHARD = "birds-train.tfrecord-00001-of-00003"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (in_info(fileFormat="array_record"), "records in 'array_record', expected 'tfrecord'"),
        (in_info(fileFormat="riegeli"), "records in 'riegeli', expected 'tfrecord'"),
        (in_info(fileFormat="\x1b[31m"), "cannot read dataset_info.json and features.json"),
        (in_info(version="one"), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(unknown=1), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(splits=7), "tensorflow_datasets cannot read dataset_info.json"),
        (in_info(splits=[{}]), "tensorflow_datasets cannot read dataset_info.json"),
        (
            in_info(name="../x"),
            "'../x-train.tfrecord-00000-of-00003' is not the name of a file in the folder",
        ),
        (in_info(supervisedKeys={"tuple": {"items": [{}]}}), "dataset_info.json"),
        (in_info(supervisedKeys={"input": "nothing", "output": "kind"}), "'nothing' is no feature"),
        (in_train(filepathTemplate="../{SPLIT}"), "'../train' is not the name of a file in the folder"),
        (in_train(filepathTemplate="/etc/{SPLIT}"), "'/etc/train' is not the name of a file in the folder"),
        (in_train(filepathTemplate="same"), "'same' is the name of two shards"),
        (in_train(filepathTemplate="{SPLIT:>9999999999}"), "file names of 'train' by"),
        (in_train(filepathTemplate="{SPLIT.__class__}"), "file names of 'train' by"),
        (in_train(filepathTemplate="{NOTHING}"), "file names of 'train' by"),
        (in_train(filepathTemplate="birds\n{SHARD_INDEX}"), "is not the name of a file in the folder"),
        (in_train(shardLengths=["14", "-1", "13"]), "not a file of -1 records"),
        (in_train(shardLengths=["14", "999999999999", "13"]), "not a file of 999,999,999,999 records"),
        (in_train(shardLengths=["14", "0", "13"]), "not a file of 0 records"),
        (in_train(shardLengths=["1", "1"]), "birds-train.tfrecord-00000-of-00002: no such shard"),
        (in_train(shardLengths=["x"]), "tensorflow_datasets cannot read dataset_info.json"),
        (in_features(evil={"pythonClassName": FOREIGN}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil={"python_class_name": FOREIGN}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil={"type": FOREIGN, "content": {}}), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil=IN_JSON), f"a feature of the class '{FOREIGN}'"),
        (in_features(evil=LEGACY), "class names in the file of another folder"),
        (
            in_features(kind={"pythonClassName": LABEL, "classLabel": {"numClasses": "99999999999"}}),
            "99999999999 classes",
        ),
        (
            in_features(kind={"pythonClassName": LABEL, "classLabel": {"numClasses": "4"}}),
            "kind.labels.txt: ",
        ),
        (in_features(photo=7), "tensorflow_datasets cannot read"),
        (text("kind.labels.txt", "a\na\nb"), "kind.labels.txt: "),
        (text("kind.labels.txt", b"\xff\xfe\xfa"), "kind.labels.txt: "),
        (text("features.json", "[" * 100_000), "features.json: not JSON"),
        (text("features.json", "[]"), "features.json: expected a JSON object"),
        (text("features.json", "{}"), "tensorflow_datasets cannot read"),
        (text("dataset_info.json", b"\xff"), "dataset_info.json: not JSON"),
        (text("dataset_info.json", " " * (1 << 22) + "{}"), "4,194,306 bytes, expected at most 4,194,304"),
        (fifo("features.json"), "features.json: not a regular file"),
        (fifo("kind.labels.txt"), "kind.labels.txt: not a regular file"),
        (fifo(SHARD), f"{SHARD}: 0 bytes, not a file of"),
        (lambda folder: (folder / SHARD).unlink(), f"{SHARD}: no such shard"),
    ],
)
def test_a_hostile_description_ends_in_one_sentence(folder, cache, tmp_path, monkeypatch, change, sentence):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    change(folder)
    with pytest.raises(DatasetError) as raised:
        load_tfds_folder(folder, cache)
    message = str(raised.value)
    assert sentence in message
    assert str(folder) in message
    assert message.isprintable()
    assert not (tmp_path / "executed").exists()


def flip(offset: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[offset] ^= 1

    return change


def relabel(label: bytes) -> Callable[[bytearray], None]:
    """The label of the first record is another number of one byte. Its checksum is not looked at by a scan."""

    def change(content: bytearray) -> None:
        place = re.search(rb"\x0a\x04kind\x12.\x1a.\x0a\x01", content, re.DOTALL)
        assert place
        content[place.end() : place.end() + 1] = label

    return change


def rename(content: bytearray) -> None:
    content[:] = content.replace(b"\x04kind", b"\x04mind", 1)


def cut(content: bytearray) -> None:
    del content[-20:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (flip(0), "record 0 at byte 0: a record has a wrong checksum of its length"),
        (cut, "is cut short"),
        (relabel(b"\x05"), "record 0 has the label 5, but there are 3 classes"),
        (rename, "record 0 is not a tf.train.Example with one number as 'kind'"),
        (flip(12), "record 0 is not a tf.train.Example with one number as 'kind'"),
    ],
)
def test_corrupt_shards_are_named(folder, cache, change, sentence):
    path = folder / SHARD
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    info = load_tfds_folder(folder, cache)
    with pytest.raises(DatasetError, match=re.escape(str(path))) as raised:
        open_tfds_index(info, "train")
    assert sentence in str(raised.value)
    assert open_tfds_index(info, "test").num_examples == 20, "The other split is not concerned."


def test_counts_are_compared_with_the_shards(folder, cache):
    edit(
        folder / "dataset_info.json",
        lambda content: train_split(content).update(shardLengths=["13", "13", "13"]),
    )
    with pytest.raises(DatasetError, match=r"13 records end at byte [\d,]+ of [\d,]+"):
        open_tfds_index(load_tfds_folder(folder, cache), "train")


def test_no_bytes_of_a_record_do_more_than_refuse_it(folder, cache):
    path = folder / SHARD
    original = path.read_bytes()
    end = 12 + int.from_bytes(original[:8], "little")
    picture = range(original.index(b"\xff\xd8"), original.index(b"\xff\xd9") + 2)
    outside = [place for place in range(12, end) if place not in picture]
    generator = np.random.default_rng(0)
    refused = 0
    info = load_tfds_folder(folder, cache)
    for number in range(300):
        content = bytearray(original)
        for place in generator.choice(outside, 3):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        fresh = dataclasses.replace(info, _rows={}, cache_dir=cache / str(number))
        try:
            assert set(labels_of(open_tfds_index(fresh, "train")).tolist()) <= {0, 1, 2}
        except DatasetError:
            refused += 1
    assert refused > 50
