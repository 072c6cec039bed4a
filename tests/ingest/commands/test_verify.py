import copy
import dataclasses
import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.commands import verify
from shardstream.ingest.commands.verify import examine, verify_dataset
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import index_rows, open_index, shard_rows
from shardstream.ingest.dataset.manifest import manifest_schema
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.metadata_check import read_metadata_state
from shardstream.ingest.dataset.provenance import RecordSources
from shardstream.ingest.dataset.records import (
    decode_example,
    encode_entries,
    encode_example,
    frame,
    read_records,
)
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.dataset.tfds_files import write_tfds_files
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.manifest_writer import write_manifest

SHARD = "d-train.tfrecord-00001-of-00002"
OTHER = "d-train.tfrecord-00000-of-00002"


def make(root, make_photos, num_photos, *options):
    make_photos(root / "photos", num_photos=num_photos)
    size = ["--image-size", "32", "--shard-size", "32KiB", "--workers", "1"]
    assert main(["build", str(root / "photos"), str(root / "d"), *size, *options]) == 0
    return root / "d"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_photos):
    return make(tmp_path_factory.mktemp("verify"), make_photos, 20)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, make_photos):
    """A dataset of the same name and the same number of shards, of other photos."""
    data = make(tmp_path_factory.mktemp("foreign"), make_photos, 19, "--seed", "5")
    assert (data / SHARD).exists()
    return data


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "d")


def found(data, *, deep=False):
    return [(damage.filename, damage.what) for damage in verify_dataset(data, deep=deep, workers=1)]


def records(path):
    with path.open("rb") as file:
        return list(read_records(file))


def rewrite(data, change):
    """Replaces the payloads of a shard by what `change` makes of them."""
    path = data / SHARD
    path.write_bytes(b"".join(map(frame, change([record.payload for record in records(path)]))))


def photo(data, number):
    """Returns the path of the photo that a record of the shard was made of."""
    return decode_example(records(data / SHARD)[number].payload)["image/filename"].decode()


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_dataset_has_nothing_wrong(data, deep):
    assert found(data, deep=deep) == []


@pytest.mark.parametrize(
    "names",
    [
        (SHARD, "features.json", "label.labels.txt", "dataset_info.json", "manifest.parquet"),
        (SHARD, "metadata.json"),
        ("manifest.parquet", "metadata.json"),
    ],
)
def test_a_missing_file_is_named(data, names):
    for name in names:
        (data / name).unlink()
    if len(names) == 2 and SHARD not in names:
        (data / "metadata.json").write_text("{")  # Without both of them it is not a dataset.
        assert [name for name, _ in found(data)] == ["manifest.parquet", "metadata.json"]
    else:
        assert found(data) == sorted((name, "missing") for name in names)


def test_a_cut_inside_of_a_record_is_named_with_its_photo(data):
    expected = photo(data, -1)
    last = records(data / SHARD)[-1].offset
    content = (data / SHARD).read_bytes()
    for size in (len(content) - 5, last + 5):
        (data / SHARD).write_bytes(content[:size])
        ((name, what),) = found(data)
        assert name == SHARD
        assert re.fullmatch(
            rf"record \d+ at byte {last} is cut short(: \d+ of \d+ bytes| in its header); its photo is "
            + re.escape(expected),
            what,
        )


def test_a_cut_between_two_records_is_named(data):
    num_examples = DatasetInfo.load(data).split("train").shards[1].num_examples
    content = (data / SHARD).read_bytes()
    offsets = [record.offset for record in records(data / SHARD)]
    for count in (num_examples - 2, 1, 0):
        (data / SHARD).write_bytes(content[: offsets[count]])
        assert found(data) == [
            (SHARD, f"{count} records, expected {num_examples}: cut between two records, or foreign")
        ]


def test_what_is_behind_the_last_record_is_named(data):
    content = (data / SHARD).read_bytes()
    for more in (b"x", b"x" * 1000, content[: records(data / SHARD)[1].offset]):
        (data / SHARD).write_bytes(content + more)
        what = f"{len(more)} bytes too many, behind its last record or foreign"
        assert found(data) == [(SHARD, what)]


def test_what_has_the_size_of_no_shard_is_named_without_being_read(data, monkeypatch):
    # A sparse file of terabytes takes no space, and hours to read.
    content = (data / SHARD).read_bytes()
    (data / SHARD).write_bytes(b"\xff" + content[1:] + bytes(1 << 20))  # What is wrong first is not seen.
    (data / "e.tfrecord").write_bytes(content + b"x")
    monkeypatch.setattr(verify, "file_sha256", pytest.fail)
    assert found(data) == [
        (SHARD, f"{1 << 20} bytes too many, behind its last record or foreign"),
        ("e.tfrecord", "not a shard of this dataset"),
    ]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_named_with_its_record_and_photo(data, share):
    content = bytearray((data / SHARD).read_bytes())
    position = int(share * len(content))
    number = sum(record.offset <= position for record in records(data / SHARD)) - 1
    offset, expected = records(data / SHARD)[number].offset, photo(data, number)
    content[position] ^= 16
    (data / SHARD).write_bytes(content)
    ((name, what),) = found(data)
    assert name == SHARD
    assert what.startswith(f"record {number} at byte {offset} ")
    assert re.search(r"has a wrong checksum of its (content|length)|is cut short", what)
    assert what.endswith(f"; its photo is {expected}")


def test_swapped_and_copied_shards_are_named(data):
    (data / SHARD).rename(data / "x")
    (data / OTHER).rename(data / SHARD)
    assert found(data) == [(OTHER, "missing"), (SHARD, f"holds the records of {OTHER}: swapped or copied")]
    (data / "x").rename(data / OTHER)
    assert found(data) == [
        (OTHER, f"holds the records of {SHARD}: swapped or copied"),
        (SHARD, f"holds the records of {OTHER}: swapped or copied"),
    ]


def test_a_foreign_shard_under_the_right_name_is_named(data, foreign):
    shutil.copy(foreign / SHARD, data / SHARD)
    ((name, what),) = found(data)
    assert (name, "foreign" in what) == (SHARD, True)
    shutil.copy(data / OTHER, data / SHARD)
    rewrite(data, lambda payloads: payloads[::-1])  # Of as many records as expected.
    ((name, what),) = found(data)
    assert (name, what.split(" (")[0]) == (
        SHARD,
        "foreign: its records are whole, but it is no file of this dataset",
    )


def test_an_extra_shard_is_named(data):
    shutil.copy(data / SHARD, data / "d-train.tfrecord-00007-of-00009")
    (data / "e.tfrecord").write_bytes(b"")
    (data / "notes.txt").write_text("mine")
    assert found(data) == [
        ("d-train.tfrecord-00007-of-00009", f"not a shard of this dataset, but a copy of {SHARD}"),
        ("e.tfrecord", "not a shard of this dataset"),
    ]


@pytest.mark.parametrize("filename", ["dataset_info.json", "features.json", "label.labels.txt"])
def test_any_change_of_the_files_for_tfds_is_named(data, filename):
    content = (data / filename).read_bytes()
    changed = {number: content[:number] + b"~" + content[number + 1 :] for number in (0, 7, len(content) - 1)}
    for number, other in {**changed, len(content): content + b" ", 3: content[:3]}.items():
        (data / filename).write_bytes(other)
        expected = (filename, f"differs from what metadata.json says, from byte {number} on")
        assert [(damage.filename, damage.what) for damage in read_metadata_state(data).damages] == [expected]


def leaves(value, path=()):
    if isinstance(value, dict | list) and value:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, (*path, key))
    else:
        yield path


def test_an_edit_of_any_value_of_the_metadata_is_named(data):
    path = data / "metadata.json"
    content = json.loads(path.read_text())
    all_leaves = list(leaves(content))
    for *above, key in all_leaves:
        changed = copy.deepcopy(content)
        parent = changed
        for step in above:
            parent = parent[step]
        before = parent[key]
        parent[key] = (
            not before if isinstance(before, bool) else f"{before}x" if isinstance(before, str) else 77
        )
        path.write_text(json.dumps(changed, ensure_ascii=False, indent=1) + "\n")
        described = read_metadata_state(data)
        assert [damage.filename for damage in described.damages] == ["metadata.json"], (above, key)
        assert described.info.encode().decode() == json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    assert len(all_leaves) > 40


def test_metadata_that_were_edited_to_fit_themselves_are_named_with_the_value(data):
    info = DatasetInfo.load(data)
    train = info.split("train")
    shards = (dataclasses.replace(train.shards[0], sha256="0" * 64), *train.shards[1:])
    for field, value, said in (
        ("class_names", ("a", "b", "c"), 'class_names[0]: "a"'),
        ("display_names", ("음식", "실내", "실외"), 'display_names[0]: "음식"'),
        ("judging", dataclasses.replace(info.judging, max_pixels=9), "judging.max_pixels: 9"),
        ("split_rule", dataclasses.replace(info.split_rule, seed=124), "split_rule.seed: 124"),
        ("shard_bytes", 9, "shard_bytes: 9"),
        ("verdicts", {**info.verdicts, "ok": 61}, "verdicts.ok: 61"),
        (
            "splits",
            {**info.splits, "train": dataclasses.replace(train, shards=shards)},
            f'splits.train.shards[0].sha256: "{"0" * 64}"',
        ),
    ):
        dataclasses.replace(info, **{field: value}).save(data)
        name, what = found(data)[0]
        assert name == "metadata.json"
        assert what.startswith(f"{said}, the copy in manifest.parquet says ")


def test_metadata_that_say_wrong_things_of_a_whole_shard_are_named_without_the_manifest(data):
    info = DatasetInfo.load(data)
    train = info.split("train")
    shard = dataclasses.replace(train.shards[1], num_bytes=999)
    edited = dataclasses.replace(train, shards=(train.shards[0], shard, *train.shards[2:]))
    dataclasses.replace(info, splits={**info.splits, "train": edited}).save(data)
    (data / "manifest.parquet").unlink()
    assert [one for one in found(data) if one[0] == "metadata.json"] == [
        ("metadata.json", f"num_bytes of {SHARD}: 999, it has {(data / SHARD).stat().st_size}"),
    ]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "cannot be read"),
        (
            lambda path: np.save(path, np.zeros(7)),
            "expected 60 rows of offset and checksum, found float64 (7,)",
        ),
        (lambda path: path.write_bytes(b"[1, 2]"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"(60,)", b"((60,")), "cannot be read"),
        (lambda path: path.symlink_to(path.rename(path.with_name("aside"))), "not a regular file"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(data, spoil, what):
    spoil(data / INDEX)
    ((name, said),) = found(data)
    assert name == INDEX
    assert said.startswith(what)


def test_an_index_whose_rows_are_wrong_is_named(data):
    index = np.load(data / INDEX)
    shard_rows(index, DatasetInfo.load(data), SHARD)["offset"][1] += 1
    np.save(data / INDEX, index)
    assert found(data) == [(INDEX, f"rows of {SHARD}: its records are elsewhere or have other checksums")]


@pytest.mark.parametrize("filename", ["metadata.json", "manifest.parquet"])
def test_a_flipped_bit_anywhere_in_a_description_is_named(data, filename):
    rng = random.Random(1)
    whole = (data / filename).read_bytes()
    for _ in range(25):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (data / filename).write_bytes(content)
        described = read_metadata_state(data)
        # The hash of the one in the other may be what was flipped: either is then named.
        assert {damage.filename for damage in described.damages} <= {"metadata.json", "manifest.parquet"}
        assert described.damages
        assert described.info is not None


@pytest.mark.parametrize("filename", ["metadata.json", "manifest.parquet"])
def test_a_description_of_another_dataset_is_named_and_the_other_one_is_believed(data, foreign, filename):
    expected = DatasetInfo.load(data)
    shutil.copy(foreign / filename, data / filename)
    described = read_metadata_state(data)
    assert {damage.filename for damage in described.damages} == {filename}
    assert described.info == expected


def test_without_readable_metadata_the_shards_are_compared_with_the_copy(data):
    (data / "metadata.json").write_bytes((data / "metadata.json").read_bytes()[:-9])
    (data / SHARD).unlink()
    damages = dict(found(data))
    assert damages[SHARD] == "missing"
    assert damages["metadata.json"].startswith("not JSON")


@pytest.mark.parametrize("content", [b"PAR1 not at all", b""])
def test_without_any_whole_description_both_are_named(data, content):
    (data / "metadata.json").write_bytes(b"{}")
    (data / "manifest.parquet").write_bytes(content)
    (manifest, metadata) = found(data)
    assert manifest[1].startswith("cannot be read: ")
    assert metadata == ("metadata.json", "format_version: missing")


def write_big_manifest(path, num_files, *, path_of="food/{}.jpg".format):
    listing = Listing(Path("photos"), ("food", "interior"))
    status = Path("/").stat()
    for number in range(num_files):
        listing.append(path_of(number).encode(), 0, FileState.of(status))
    catalog = Catalog(listing)
    rng = np.random.default_rng(1)
    catalog.digests[:] = rng.integers(1, 1 << 60, catalog.digests.shape, np.uint64)
    catalog.verdicts[:] = 0
    numbers = np.arange(num_files) // 2
    catalog.splits[:] = np.arange(num_files) % 2
    catalog.shards[:] = numbers % 7
    catalog.positions[:] = numbers[-1] // 7 - numbers // 7
    write_manifest(catalog, path, b"copy", manifest_schema())
    return catalog


def test_the_photos_of_a_shard_are_found_in_the_order_of_its_records(data, tmp_path):
    catalog = write_big_manifest(tmp_path / "manifest.parquet", 70_000)
    info = DatasetInfo.load(data)
    shard = dataclasses.replace(info.split("train").shards[0], num_examples=5000)
    splits = {
        name: dataclasses.replace(info.split(name), shards=(shard,) * 7) for name in ("train", "validation")
    }
    info = dataclasses.replace(
        info, data_dir=tmp_path, class_names=("food", "interior"), splits=splits, verdicts={"ok": 70_000}
    )
    wanted = [("validation", 6), ("train", 2)]
    origins = RecordSources(info, wanted)
    for split, number in wanted:
        rows = np.flatnonzero(
            (catalog.splits == ("train", "validation").index(split)) & (catalog.shards == number)
        )
        rows = rows[np.argsort(catalog.positions[rows])]
        assert [origin.path for origin in origins.of(split, number)] == [f"food/{row}.jpg" for row in rows]


def test_only_deep_looks_into_the_pictures(data, capsys):
    def damage(payloads):
        features = decode_example(payloads[0])
        features["image"] = features["image"][:200]
        features["label"] = 7
        return [encode_example(encode_entries(features)), *payloads[1:]]

    path = photo(data, 0)
    rewrite(data, damage)
    # As if the dataset had been made so.
    info = DatasetInfo.load(data)
    content = (data / SHARD).read_bytes()
    found_records = records(data / SHARD)
    train = info.split("train")
    shards = list(train.shards)
    shards[1] = dataclasses.replace(
        shards[1],
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    index = np.array(open_index(info))
    rows = index_rows([one.offset for one in found_records], [one.checksum for one in found_records])
    shard_rows(index, info, SHARD)[:] = rows
    np.save(data / INDEX, index)
    splits = dict(info.splits) | {"train": dataclasses.replace(train, shards=tuple(shards))}
    info = dataclasses.replace(info, splits=splits)
    rewrite_descriptions(data, info)

    assert found(data) == []
    (label, picture) = found(data, deep=True)
    assert label == (SHARD, f"record 0 at byte 0: label 7, there are 3 classes; its photo is {path}")
    assert picture[1].startswith("record 0 at byte 0: corrupt")
    # No repair would help: the bytes are those that were written.
    assert main(["verify", str(data), "--deep"]) == 1
    assert capsys.readouterr().out.endswith(
        "\nimages that were written that way: repair or remove their source files, and then: "
        f"shardstream-ingest update IMAGES {data}\n"
    )


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("verdict", "x", "a verdict that is none of ok, repaired, duplicate, conflict, rejected"),
        ("verdict", None, "a verdict that is none of ok, repaired, duplicate, conflict, rejected"),
        ("source_height", -1, "a negative source_height"),
        ("source_width", -1, "a negative source_width"),
    ],
)
def test_values_of_the_manifest_that_no_build_writes_are_named(whole, data, capsys, column, value, what):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = data / "manifest.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    field = table.schema.field(column)
    values = pa.array([value, *table[column].to_pylist()[1:]], getattr(field.type, "value_type", field.type))
    pq.write_table(table.set_column(place, field, values.cast(field.type)), path)
    rewrite_descriptions(data, DatasetInfo.load(data))
    assert found(data) == [("manifest.parquet", f"has {what}")]
    assert main(["update", str(whole.parent / "photos"), str(data), "--workers", "1"]) == 2
    assert f"manifest.parquet: has {what}; repair it" in capsys.readouterr().err


def rewrite_descriptions(data, info):
    """Writes all descriptions as a build that came to `info` would have."""
    import pyarrow.parquet as pq

    path = data / "manifest.parquet"
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"shardstream": info.with_manifest("").encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    info.with_manifest(hashlib.sha256(path.read_bytes()).hexdigest()).save(data)
    write_tfds_files(info, data)


def test_the_command_prints_damage_and_what_mends_it_and_leaves_with_1(data, tmp_path, capsys):
    assert main(["verify", str(data)]) == 0
    assert capsys.readouterr().out == "whole: 60 records\n"
    (data / SHARD).unlink()
    assert main(["verify", str(data)]) == 1
    printed = capsys.readouterr().out
    assert re.search(rf"{SHARD}.*missing", printed)
    assert printed.endswith(f"repair it with: shardstream-ingest repair IMAGES {data}\n")
    assert main(["verify", str(data), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "damages": [{"filename": SHARD, "what": "missing", "remedy": "repair"}]
    }


def test_a_dataset_that_was_replaced_meanwhile_is_not_called_corrupt(data, tmp_path, monkeypatch, capsys):
    def examine_and_replace(data_dir, *args, **options):
        (data_dir / SHARD).unlink()
        found = examine(data_dir, *args, **options)
        data_dir.rename(tmp_path / "old")
        shutil.copytree(tmp_path / "old", data_dir)
        return found

    monkeypatch.setattr(verify, "examine", examine_and_replace)
    assert main(["verify", str(data)]) == 2
    assert "another folder took its place while it was read" in capsys.readouterr().err


def test_what_is_no_dataset_is_refused_in_a_sentence(data, tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path}/nowhere: no such folder" in capsys.readouterr().err
    (data / "metadata.json").unlink()
    (data / "manifest.parquet").unlink()
    assert main(["verify", str(data)]) == 2
    assert "no metadata.json in it, so it is not a complete dataset" in capsys.readouterr().err
