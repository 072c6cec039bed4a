import dataclasses
import hashlib
import json
import re
import shutil

import pytest

from ingest.__main__ import main
from ingest.metadata import DatasetInfo
from ingest.records import decode_example, encode_entries, encode_example, frame, read_records
from ingest.verify import verify_dataset

SHARD = "d-train.tfrecord-00001-of-00003"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_photos):
    root = tmp_path_factory.mktemp("verify")
    make_photos(root / "photos", num_photos=20)
    options = ["--image-size", "32", "--shard-size", "20KiB", "--workers", "1"]
    assert main(["build", str(root / "photos"), str(root / "d"), *options]) == 0
    return root / "d"


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "d")


def found(data, *, deep=False):
    return [(damage.filename, damage.what) for damage in verify_dataset(data, deep=deep, workers=1)]


def rewrite(data, change):
    """Replaces the payloads of a shard by what `change` makes of them."""
    path = data / SHARD
    with path.open("rb") as file:
        payloads = [record.payload for record in read_records(file)]
    path.write_bytes(b"".join(map(frame, change(payloads))))


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_dataset_has_nothing_wrong(data, deep):
    assert found(data, deep=deep) == []


def test_a_missing_file_is_named(data):
    for name in (SHARD, "manifest.parquet", "features.json", "label.labels.txt"):
        (data / name).unlink()
    assert found(data) == sorted(
        [
            (SHARD, "missing"),
            ("manifest.parquet", "missing"),
            ("features.json", "missing"),
            ("label.labels.txt", "missing"),
        ]
    )


def test_a_cut_is_named(data):
    size = (data / SHARD).stat().st_size
    with (data / SHARD).open("r+b") as file:
        file.truncate(size - 5)
    ((name, what),) = found(data)
    assert name == SHARD
    assert re.fullmatch(r"record \d+ at byte \d+ is cut short: \d+ of \d+ bytes", what)


def test_a_cut_between_two_records_is_named(data):
    num_examples = DatasetInfo.load(data).split("train").shards[1].num_examples
    rewrite(data, lambda payloads: payloads[:-2])
    assert found(data) == [
        (
            SHARD,
            f"{num_examples - 2} records, metadata says {num_examples}: cut between two records, or foreign",
        )
    ]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_named_with_its_record(data, share):
    content = bytearray((data / SHARD).read_bytes())
    content[int(share * len(content))] ^= 16
    (data / SHARD).write_bytes(content)
    ((name, what),) = found(data)
    assert name == SHARD
    assert re.match(r"record \d+ at byte \d+ (has a wrong checksum|is cut short)", what)


def test_swapped_shards_are_named(data):
    other = SHARD.replace("00001", "00000")
    (data / SHARD).rename(data / "x")
    (data / other).rename(data / SHARD)
    (data / "x").rename(data / other)
    assert [name for name, _ in found(data)] == [other, SHARD]


def test_a_whole_but_other_file_is_named(data):
    rewrite(data, lambda payloads: payloads[::-1])
    ((name, what),) = found(data)
    assert (name, what.split(" (")[0]) == (SHARD, "whole, but another file than metadata says")


def test_a_foreign_shard_is_named(data):
    shutil.copy(data / SHARD, data / "d-train.tfrecord-00007-of-00009")
    assert found(data) == [("d-train.tfrecord-00007-of-00009", "not a shard of this dataset")]


def test_a_damaged_manifest_is_named(data):
    (data / "manifest.parquet").write_bytes(b"PAR1 not at all")
    ((name, what),) = found(data)
    assert name == "manifest.parquet"
    assert what.startswith("cannot be read: ")


def test_only_deep_looks_into_the_pictures(data):
    def damage(payloads):
        features = decode_example(payloads[0])
        features["image"] = features["image"][:200]
        features["label"] = 7
        return [encode_example(encode_entries(features)), *payloads[1:]]

    rewrite(data, damage)
    # As if the dataset had been made so: the metadata agree with the file.
    info = DatasetInfo.load(data)
    content = (data / SHARD).read_bytes()
    with (data / SHARD).open("rb") as file:
        offsets = tuple(record.offset for record in read_records(file))[::16]
    train = info.split("train")
    shards = list(train.shards)
    shards[1] = dataclasses.replace(
        shards[1], num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), block_offsets=offsets
    )
    splits = dict(info.splits) | {"train": dataclasses.replace(train, shards=tuple(shards))}
    dataclasses.replace(info, splits=splits).save(data)

    assert found(data) == []
    (label, picture) = found(data, deep=True)
    assert label == (SHARD, "record 0: label 7, there are 3 classes")
    assert picture[1].startswith("record 0: damaged")


def test_the_command_prints_damage_and_leaves_with_1(data, capsys):
    assert main(["verify", str(data)]) == 0
    assert capsys.readouterr().out == "whole: 60 records\n"
    (data / SHARD).unlink()
    assert main(["verify", str(data)]) == 1
    assert re.search(rf"{SHARD}.*missing", capsys.readouterr().out)
    assert main(["verify", str(data), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"damages": [{"filename": SHARD, "what": "missing"}]}
    (data / "metadata.json").unlink()
    assert main(["verify", str(data)]) == 2
