import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.class_counts import missing_class_notes
from shardstream.train.data.tfds_folder import is_tfds_folder, load_tfds_folder, open_tfds_index
from shardstream.train.data.tfds_index import labels_of

CLASSES = ["cat/dog", "<b>&", "새"]
SCAN = "reads the headers"


@pytest.fixture
def folder(tfds_folder) -> Path:
    return tfds_folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level("INFO", "shardstream")


def shards(folder: Path, split: str) -> list[Path]:
    return sorted(folder.glob(f"birds-{split}.tfrecord*"))


def test_what_stock_tfds_writes_is_described(shared_tfds, cache):
    before = {path: path.stat().st_mtime_ns for path in shared_tfds.rglob("*")}
    info = load_tfds_folder(shared_tfds, cache)
    assert (info.name, info.version, info.class_names) == ("birds", "2.0.1", tuple(CLASSES))
    assert (info.image_key, info.label_key, info.filename_key) == ("photo", "kind", "image/filename")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 40,
        "test": 20,
        "validation": 20,
    }
    assert len(info.splits["train"].shards) == 3
    assert info.split("train").class_counts == (14, 13, 13)
    assert info.image.size is None
    assert {path: path.stat().st_mtime_ns for path in shared_tfds.rglob("*")} == before


def test_classes_are_counted_where_a_folder_has_no_counts(shared_tfds, cache):
    assert missing_class_notes(load_tfds_folder(shared_tfds, cache), ("train", "validation")) == []


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_are_the_records_that_tfds_reads(shared_tfds, cache, split, payloads):
    info = load_tfds_folder(shared_tfds, cache)
    stored = "test" if split == "validation" else split
    config = tfds.ReadConfig(interleave_cycle_length=1)
    decoders = {"photo": tfds.decode.SkipDecoding()}
    dataset = tfds.builder_from_directory(str(shared_tfds)).as_dataset(
        split=stored, read_config=config, decoders=decoders
    )
    expected = [(int(row["kind"]), row["photo"].numpy()) for row in dataset]
    index = open_tfds_index(info, split)
    assert labels_of(index).tolist() == [label for label, _ in expected]
    found = payloads(info, split)
    assert len(found) == len(expected)
    assert all(image in payload for payload, (_, image) in zip(found, expected, strict=True))


def test_a_scan_is_kept_and_belongs_to_the_files(folder, cache, caplog):
    info = load_tfds_folder(folder, cache)
    assert SCAN not in caplog.text, "Nothing is scanned before a split is used."
    fingerprint = info.fingerprint
    assert SCAN in caplog.text
    caplog.clear()
    again = load_tfds_folder(folder, cache)
    assert again == info
    assert again.fingerprint == fingerprint
    assert isinstance(open_tfds_index(again, "train").records, np.memmap)
    assert SCAN not in caplog.text
    os.utime(shards(folder, "train")[1], (1, 1))
    assert load_tfds_folder(folder, cache).fingerprint == fingerprint
    assert SCAN in caplog.text


@pytest.mark.parametrize("spoil", ["torn", "foreign", "of other shards", "of other labels"])
def test_a_kept_index_is_checked(folder, cache, caplog, spoil):
    info = load_tfds_folder(folder, cache)
    rows = np.array(open_tfds_index(info, "train").records)
    (kept,) = (cache / "indexes").iterdir()
    if spoil == "torn":
        kept.write_bytes(kept.read_bytes()[:-7])
    elif spoil == "foreign":
        np.save(kept, np.arange(40))
    else:
        name, change = ("offset", -1) if spoil == "of other shards" else ("label", 7)
        rows[name][5] += change if spoil == "of other labels" else 10**9
        np.save(kept, rows)
    caplog.clear()
    again = open_tfds_index(load_tfds_folder(folder, cache), "train")
    assert SCAN in caplog.text
    assert (
        labels_of(again).tolist() != [] and again.records["offset"][5] < 10**6 and labels_of(again).max() == 2
    )


def test_a_kept_index_runs_no_code(folder, cache, tmp_path):
    open_tfds_index(load_tfds_folder(folder, cache), "train")
    (kept,) = (cache / "indexes").iterdir()

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.save(kept, np.array([Bomb()], object), allow_pickle=True)
    assert open_tfds_index(load_tfds_folder(folder, cache), "train").num_examples == 40
    assert not (tmp_path / "exploded").exists()


def test_an_index_that_cannot_be_kept_is_made_each_time(folder, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    assert open_tfds_index(load_tfds_folder(folder, tmp_path / "file"), "train").num_examples == 40
    assert "cannot be written" in caplog.text


def test_the_fingerprint_covers_every_trained_record(folder, cache):
    before = load_tfds_folder(folder, cache).fingerprint
    path = shards(folder, "train")[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # A checksum of a record.
    path.write_bytes(content)
    assert load_tfds_folder(folder, cache).fingerprint != before


def test_an_unlabelled_split_refuses_itself_alone(tmp_path, cache, write_tfds, tfds_examples):
    splits = {
        "train": tfds_examples(0, 20),
        "validation": tfds_examples(20, 30),
        "test": [example | {"kind": -1} for example in tfds_examples(30, 40)],
    }
    info = load_tfds_folder(write_tfds(tmp_path / "tfds", splits), cache)
    assert info.fingerprint
    assert open_tfds_index(info, "train").num_examples == 20
    assert info.split("test").class_counts == (0, 0, 0)
    with pytest.raises(DatasetError, match=r"birds-test\S*: record 0 has no label \(-1\)"):
        open_tfds_index(info, "test")


def test_an_unlabelled_record_of_the_train_split_is_named(tmp_path, cache, write_tfds, tfds_examples):
    train = tfds_examples(0, 20)
    train[7]["kind"] = -1
    splits = {"train": train, "validation": tfds_examples(20, 30)}
    data = write_tfds(tmp_path / "tfds", splits, in_order=True, num_shards=2)
    info = load_tfds_folder(data, cache)
    assert [shard.num_examples for shard in info.splits["train"].shards] == [10, 10]
    with pytest.raises(
        DatasetError, match=r"birds-train.tfrecord-00000-of-00002: record 7 has no label \(-1\)"
    ):
        open_tfds_index(info, "train")


@pytest.mark.parametrize(("shape", "size"), [((28, 28, 1), 28), ((28, 30, 3), None), ((None, None, 1), None)])
def test_a_static_square_shape_is_the_stored_size(tmp_path, cache, shape, size, write_tfds):
    pixels = np.zeros(tuple(side or 9 for side in shape), np.uint8)
    rows = [{"photo": pixels, "kind": n % 3} for n in range(6)]
    data = write_tfds(tmp_path / "tfds", {"train": rows, "validation": rows}, shape=shape)
    assert load_tfds_folder(data, cache).image.size == size


def test_supervised_keys_choose_among_several(tmp_path, cache, write_tfds, tfds_examples):
    features = {
        "mask": tfds.features.Image(shape=(None, None, 1)),
        "species": tfds.features.ClassLabel(num_classes=2),
    }
    rows = tfds_examples(0, 6, mask=np.zeros((4, 4, 1), np.uint8), species=1)
    splits = {"train": rows, "validation": rows}
    info = load_tfds_folder(
        write_tfds(tmp_path / "a", splits, features=features, supervised_keys=("photo", "species")), cache
    )
    assert (info.label_key, info.class_names) == ("species", ("0", "1"))
    assert labels_of(open_tfds_index(info, "train")).tolist() == [1] * 6
    for example in rows:
        example["photo"].seek(0)
    data = write_tfds(tmp_path / "b", splits, features=features)
    with pytest.raises(
        DatasetError, match="supervised keys that name them, found 'mask', 'photo', 'kind', 'species'"
    ):
        load_tfds_folder(data, cache)


BOXES = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(num_classes=2)}


@pytest.mark.parametrize(
    ("feature", "keys", "sentence"),
    [
        (tfds.features.Sequence(BOXES), None, "'target' is for detection"),
        (
            tfds.features.Sequence(tfds.features.ClassLabel(num_classes=2)),
            None,
            "'target' is for multi-label",
        ),
        (tfds.features.Scalar(dtype=np.float32), None, "'target' is for regression"),
        (
            tfds.features.Scalar(dtype=np.float32),
            ("photo", "target"),
            "'target' is Scalar, expected ClassLabel",
        ),
        (tfds.features.Text(), ("target", "photo"), "'target' is Text, expected Image"),
        (
            tfds.features.LabeledImage(labels=2, shape=(4, 4, 1)),
            ("photo", "target"),
            "'target' is LabeledImage",
        ),
    ],
)
def test_what_is_no_classification_is_refused_by_name(tmp_path, cache, feature, keys, sentence):
    features = {"photo": tfds.features.Image(), "target": feature}
    (tmp_path / "birds").mkdir()
    info = {"name": "birds", "version": "1.0.0", "splits": [{"name": "validation", "shardLengths": ["1"]}]}
    if keys:
        info["supervisedKeys"] = dict(zip(("input", "output"), keys, strict=True))
    (tmp_path / "birds/dataset_info.json").write_text(json.dumps(info))
    tfds.features.FeaturesDict(features).save_config(tmp_path / "birds")
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        load_tfds_folder(tmp_path / "birds", cache)


def test_folders_of_ours_are_not_tfds_folders(folder):
    assert is_tfds_folder(folder)
    assert not is_tfds_folder(folder.parent)
    (folder / "metadata.json").write_text('{"note": "as builders of TFDS write it"}')
    assert is_tfds_folder(folder)
    for content in ('{"format_version": 4}', "{"):
        (folder / "metadata.json").write_text(content)
        assert not is_tfds_folder(folder)


def test_a_folder_made_by_store_as_tfds_dataset(tmp_path, cache):
    pytest.importorskip("importlib_resources")
    data = {
        name: [{"photo": np.full((9, 9, 3), n, np.uint8), "kind": n % 3} for n in range(9)]
        for name in ("train", "validation")
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="stored",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"photo": tfds.features.Image(), "kind": tfds.features.ClassLabel(names=CLASSES)}
        ),
        split_datasets={name: list(enumerate(rows)) for name, rows in data.items()},
        data_dir=str(tmp_path / "tfds"),
    )
    info = load_tfds_folder(tmp_path / "tfds/stored/1.0.0", cache)
    assert info.split("train").class_counts == (3, 3, 3)


def test_reading_a_folder_loads_no_tensorflow(shared_tfds, tmp_path):
    program = f"""
import sys
from pathlib import Path
from shardstream.train.data.tfds_folder import load_tfds_folder, open_tfds_index
info = load_tfds_folder(Path({str(shared_tfds)!r}), Path({str(tmp_path)!r}))
print(open_tfds_index(info, "train").num_examples, len(info.fingerprint), "tensorflow" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "40 64 False\n", result.stderr
