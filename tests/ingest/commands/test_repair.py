"""Corruption, and the same bytes again."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.commands.verify import verify_dataset
from shardstream.ingest.common.locks import lock_file
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, frame, read_records

SHARD = "d-train.tfrecord-00001-of-00002"
OTHER = "d-train.tfrecord-00000-of-00002"
OPTIONS = ("--image-size", "32", "--shard-size", "32KiB", "--workers", "1")


def build(images, data, *options):
    return main(["build", str(images), str(data), *OPTIONS, "--max-rejected", "0.1", *options])


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_photos, photo):
    """Photos, with all that there can be among them, and the dataset of them."""
    root = tmp_path_factory.mktemp("repair")
    photos = make_photos(root / "photos", num_photos=20)
    (photos / "food/again.jpg").write_bytes((photos / "food/3.jpg").read_bytes())
    (photos / "interior/both.jpg").write_bytes((photos / "food/7.jpg").read_bytes())
    (photos / "food/broken.jpg").write_bytes(photo(1)[:-50])
    (photos / "food/gone.jpg").symlink_to("nowhere")
    (photos / "food/named.jpg").write_bytes(photo(99, file_format="PNG"))
    (photos / "food/비빔밥.jpg").write_bytes(photo(98))
    with open(os.fsencode(photos) + b"/food/caf\xe9.jpg", "wb") as file:  # noqa: PTH123 - Not UTF-8.
        file.write(photo(97))
    assert build(photos, root / "d") == 0
    return root


@pytest.fixture
def photos(made, tmp_path):
    # Without their times, which no file depends on that is repaired.
    return shutil.copytree(made / "photos", tmp_path / "photos", symlinks=True, copy_function=shutil.copy)


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made / "d", tmp_path / "d")


def content(data):
    return {path.name: path.read_bytes() for path in data.iterdir()}


def repair(photos, data, capsys):
    """Returns the exit code, and what was done for each file."""
    capsys.readouterr()
    exit_code = main(["repair", str(photos), str(data), "--workers", "1", "--json"])
    return exit_code, {one["filename"]: one for one in json.loads(capsys.readouterr().out)["repairs"]}


def sources(data, filename):
    """Returns the paths of the photos that a shard was made of."""
    with (data / filename).open("rb") as file:
        return [decode_example(record.payload)["image/filename"].decode() for record in read_records(file)]


def cut(path, share=0.5):
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


def flip(path, share=0.5):
    whole = bytearray(path.read_bytes())
    whole[int(len(whole) * share)] ^= 4
    path.write_bytes(whole)


def append(path, more):
    path.write_bytes(path.read_bytes() + more)


def reorder(path):
    with path.open("rb") as file:
        payloads = [record.payload for record in read_records(file)]
    path.write_bytes(b"".join(map(frame, payloads[::-1])))


def swap(data, one, other):
    (data / one).rename(data / "x")
    (data / other).rename(data / one)
    (data / "x").rename(data / other)


def edit_seed(data):
    path = data / "metadata.json"
    path.write_text(path.read_text().replace('"seed": 123', '"seed": 124'))


DAMAGES = {
    "a missing shard": lambda data: (data / SHARD).unlink(),
    "a cut": lambda data: cut(data / SHARD),
    "a cut before the first record": lambda data: cut(data / SHARD, 0),
    "a flipped bit": lambda data: flip(data / SHARD),
    "bytes at the end": lambda data: append(data / SHARD, b"more"),
    "other records": lambda data: reorder(data / SHARD),
    "swapped shards": lambda data: swap(data, SHARD, OTHER),
    "a copy in the place of another": lambda data: shutil.copy(data / SHARD, data / OTHER),
    "an empty shard and a link to nothing": lambda data: (
        (data / SHARD).write_bytes(b""),
        (data / OTHER).unlink(),
        (data / OTHER).symlink_to("nowhere"),
    ),
    "all shards missing": lambda data: [path.unlink() for path in data.glob("*.tfrecord-*")],
    "metadata missing": lambda data: (data / "metadata.json").unlink(),
    "metadata cut": lambda data: cut(data / "metadata.json"),
    "metadata edited": edit_seed,
    "manifest missing": lambda data: (data / "manifest.parquet").unlink(),
    "manifest flipped": lambda data: flip(data / "manifest.parquet"),
    "TFDS's files": lambda data: [cut(data / name) for name in ("features.json", "label.labels.txt")],
    "a shard and the metadata": lambda data: (cut(data / SHARD), cut(data / "metadata.json")),
    "a shard and the manifest": lambda data: (cut(data / SHARD), flip(data / "manifest.parquet", 0.99)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_gets_the_bytes_that_it_had(photos, data, capsys, damage):
    before = content(data)
    damage(data)
    damaged = {one.filename for one in verify_dataset(data, deep=False, workers=1)}
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 0
    assert repairs.keys() == damaged
    assert damaged
    assert all(one["is_mended"] for one in repairs.values())
    assert content(data) == before
    assert verify_dataset(data, deep=True, workers=1) == []
    assert sorted(path.name for path in data.parent.iterdir()) == ["d", "photos"]


def test_whole_files_stay_untouched(photos, data, capsys):
    (data / SHARD).unlink()
    before = {path.name: path.stat() for path in data.iterdir()}
    assert repair(photos, data, capsys)[0] == 0
    after = {path.name: path.stat() for path in data.iterdir()}
    assert [name for name in after if name not in before] == [SHARD]
    assert all(after[name].st_ino == before[name].st_ino for name in before)
    assert all(after[name].st_mtime_ns == before[name].st_mtime_ns for name in before)
    assert repair(photos, data, capsys) == (0, {})


def test_a_shard_takes_its_own_photos_and_no_others(photos, data, capsys):
    before = content(data)
    needed = sources(data, SHARD)
    for path in photos.rglob("*"):
        if (
            path.is_file()
            and os.fsencode(path.relative_to(photos)).decode("utf-8", "backslashreplace") not in needed
        ):
            path.unlink()
    flip(data / SHARD)
    assert repair(photos, data, capsys)[0] == 0
    assert content(data) == before


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "1 gone"),
        (lambda path: path.write_bytes(b"another"), "1 changed"),
        (flip, "1 changed"),  # Of the same size.
    ],
)
def test_photos_that_are_not_as_they_were_are_named_and_the_other_shards_are_mended(
    photos, data, tmp_path, capsys, spoil, sentence
):
    before = content(data)
    needed = sources(data, SHARD)
    path = next(path for path in needed if path.startswith("exterior"))
    for name in (SHARD, OTHER, "features.json"):
        cut(data / name)
    left = (data / SHARD).read_bytes()
    shutil.copy(photos / path, tmp_path / "kept")
    spoil(photos / path)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    repaired = {name: one["is_mended"] for name, one in repairs.items()}
    assert repaired == {SHARD: False, OTHER: True, "features.json": True}
    assert repairs[SHARD]["outcome"] == f"not repaired: of its {len(needed)} photos {sentence} ({path})"
    assert repairs[SHARD]["photos"] == [path]
    assert content(data) == before | {SHARD: left}

    shutil.copy(tmp_path / "kept", photos / path)
    assert repair(photos, data, capsys)[0] == 0
    assert content(data) == before


def test_a_category_that_is_gone_is_said_and_what_needs_no_photos_is_mended(photos, data, capsys):
    before = content(data)
    needed = sources(data, SHARD)
    shutil.rmtree(photos / "interior")
    (data / SHARD).unlink()
    edit_seed(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    gone = [path for path in needed if path.startswith("interior/")]
    assert repairs[SHARD]["outcome"] == (
        f"not repaired: of its {len(needed)} photos {len(gone)} gone ({', '.join(gone[:3])}, ...)"
    )
    assert repairs[SHARD]["photos"] == gone
    assert content(data) == {name: what for name, what in before.items() if name != SHARD}
    assert main(["repair", str(photos), str(data)]) == 1
    assert "restore the original images" in capsys.readouterr().out
    assert main(["repair", str(photos / "nowhere"), str(data)]) == 2
    assert f"{photos}/nowhere: not a folder; give the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda photos: (photos / "food/2.jpg").unlink(),
            "the photos are not as they were: 60 ok instead of 61",
        ),
        (
            lambda photos: (photos / "food/2.jpg").rename(photos / "food/2b.jpg"),
            "as many photos as there were, but not the same",
        ),
        (
            lambda photos: shutil.rmtree(photos / "food"),
            "the categories are no longer exterior food interior",
        ),
    ],
)
def test_a_manifest_of_photos_that_changed_is_left_and_said(photos, data, capsys, change, sentence):
    flip(data / "manifest.parquet")
    (data / "label.labels.txt").unlink()
    cut(data / SHARD)
    before = content(data)
    change(photos)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert repairs["manifest.parquet"]["outcome"].startswith(f"not repaired: {sentence}")
    assert repairs[SHARD]["outcome"] == "not repaired: it takes a complete manifest.parquet"
    assert content(data) == before


def edit(data):
    """Edits the metadata so that they fit themselves."""
    info = DatasetInfo.load(data)
    rule = dataclasses.replace(info.split_rule, seed=124)
    dataclasses.replace(info, display_names=("a", "b", "c"), split_rule=rule).save(data)


def test_without_any_description_that_the_photos_bear_out_nothing_is_changed(photos, data, capsys):
    edit(data)
    (data / "manifest.parquet").unlink()
    (data / SHARD).unlink()
    before = content(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert not any(one["is_mended"] for one in repairs.values())
    assert "or metadata.json is wrong as well" in repairs["manifest.parquet"]["outcome"]
    assert content(data) == before

    cut(data / "metadata.json")
    before = content(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert {name: one["outcome"] for name, one in repairs.items()} == {
        "manifest.parquet": "not repaired: it takes a complete manifest.parquet",
        "metadata.json": "not repaired: it takes a complete manifest.parquet",
    }
    assert content(data) == before
    assert not data.with_name("d.incomplete").exists()


def test_a_shard_that_cannot_be_made_to_the_same_bytes_is_left(photos, data, capsys):
    # As if other versions of decoders had made it: all files agree on a hash that is not that of these records.
    import pyarrow.parquet as pq

    info = DatasetInfo.load(data)
    train = info.split("train")
    shards = (train.shards[0], dataclasses.replace(train.shards[1], sha256="0" * 64), *train.shards[2:])
    info = dataclasses.replace(
        info, splits={**info.splits, "train": dataclasses.replace(train, shards=shards)}
    )
    table = pq.read_table(data / "manifest.parquet")
    metadata = {**table.schema.metadata, b"shardstream": info.with_manifest("").encode()}
    pq.write_table(table.replace_schema_metadata(metadata), data / "manifest.parquet")
    info.with_manifest(hashlib.sha256((data / "manifest.parquet").read_bytes()).hexdigest()).save(data)
    before = content(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert repairs[SHARD]["outcome"] == (
        "not repaired: its photos are as they were, but other versions of decoders make other bytes of them"
    )
    assert content(data) == before


def test_what_is_no_dataset_is_refused_and_nothing_is_left(photos, tmp_path, capsys):
    assert main(["repair", str(photos), str(tmp_path / "nowhere")]) == 2
    assert "no such folder; make it with `shardstream-ingest build" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_extra_files_stay_and_are_named(photos, data, capsys):
    shutil.copy(data / SHARD, data / "d-train.tfrecord-00007-of-00009")
    (data / "mine.tfrecord").write_bytes(b"mine")
    (data / "notes.txt").write_text("mine")
    data.with_name("d.foreign").symlink_to("photos")
    before = content(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert {name: one["outcome"] for name, one in repairs.items()} == dict.fromkeys(
        ("d-train.tfrecord-00007-of-00009", "mine.tfrecord"),
        "left where it is: no file of this dataset; move it elsewhere",
    )
    assert content(data) == before


def test_a_folder_in_the_place_of_a_shard_is_left_and_named(photos, data, capsys):
    (data / SHARD).unlink()
    (data / SHARD).mkdir()
    (data / SHARD / "thesis.txt").write_text("mine")
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 1
    assert "a folder has its name: move that elsewhere" in repairs[SHARD]["outcome"]
    assert (data / SHARD / "thesis.txt").read_text() == "mine"


def test_metadata_that_name_another_manifest_are_repaired_if_the_photos_bear_out_the_one_that_is_there(
    photos, data, capsys
):
    before = content(data)
    DatasetInfo.load(data).with_manifest("0" * 64).save(data)
    exit_code, repairs = repair(photos, data, capsys)
    assert exit_code == 0
    assert "metadata.json, which named another one" in repairs["manifest.parquet"]["outcome"]
    assert content(data) == before


@pytest.mark.parametrize("name", ["../victim", "victim"])
def test_a_name_in_the_metadata_that_leads_out_writes_nothing_there(photos, data, capsys, name):
    victim = data.parent / "victim"
    victim.write_text("precious")
    path = data / "metadata.json"
    path.write_text(path.read_text().replace(SHARD, str(victim) if name == "victim" else name))
    (data / SHARD).unlink()
    assert main(["verify", str(data)]) == 1
    repair(photos, data, capsys)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "options",
    [
        ("--class-names", "interior", "food", "exterior", "--display-names", "실내", "음식", "실외"),
        ("--image-size", "original", "--encoding", "png", "--seed", "4", "--test", "0.3"),
        ("--encoding", "raw", "--resize", "pad", "--stratify"),
        ("--keep-together", r"/(\d)", "--validation", "0.4"),
        ("--keep-together", "near-duplicates", "--validation", "0.4"),
    ],
)
def test_any_options_are_kept(photos, tmp_path, capsys, options):
    data = tmp_path / "e"
    assert build(photos, data, *options) == 0
    before = content(data)
    shards = sorted(data.glob("*.tfrecord-*"))
    flip(shards[0])
    shards[-1].unlink()
    (data / "manifest.parquet").unlink()
    assert repair(photos, data, capsys)[0] == 0
    assert content(data) == before


@pytest.mark.parametrize("phase", ["repair map", "repair manifest", "repair shards"])
def test_killed_in_a_phase_every_file_is_whole_or_as_it_was_and_the_same_command_goes_on(
    photos, data, kill, phase
):
    before = content(data)
    for path in data.glob("*.tfrecord-*"):
        cut(path)
    flip(data / "manifest.parquet")
    cut(data / "features.json")
    damaged = content(data)
    command = [sys.executable, "-m", "shardstream.ingest", "repair", str(photos), str(data), "--workers", "2"]
    for _ in range(10):
        if kill(phase, command, data):
            break
        for name, what in damaged.items():  # It was quicker than the kill.
            (data / name).write_bytes(what)
    else:
        pytest.fail(f"no kill struck in the phase {phase!r}")
    after = content(data)
    assert after.keys() == before.keys()
    assert all(after[name] in (before[name], damaged[name]) for name in before)
    assert after != before
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert content(data) == before
    assert sorted(path.name for path in data.parent.iterdir()) == ["d", "photos"]


def test_an_update_that_met_damage_goes_on_after_the_repair(photos, data, photo, tmp_path, capsys):
    (photos / "food/new.jpg").write_bytes(photo(5000))
    for path in data.glob("*.tfrecord-*"):  # Whichever the new one falls into: the others are not read.
        flip(path)
    update = ["update", str(photos), str(data), "--workers", "1", "--max-rejected", "0.1"]
    assert main(update) == 2
    assert "shardstream-ingest repair" in capsys.readouterr().err
    unfinished = sorted(path.name for path in data.with_name("d.incomplete").rglob("*.verdicts"))
    assert unfinished
    assert repair(photos, data, capsys)[0] == 0
    assert sorted(path.name for path in data.with_name("d.incomplete").rglob("*.verdicts")) == unfinished
    assert main(update) == 0
    (tmp_path / "new").mkdir()
    assert build(photos, tmp_path / "new/d") == 0
    assert content(data) == content(tmp_path / "new/d")


def test_a_repair_beside_another_job_is_refused(photos, data, capsys):
    data.with_name("d.incomplete").mkdir()
    with lock_file(data.with_name("d.lock"), busy="busy"):
        assert main(["repair", str(photos), str(data)]) == 2
    assert "d.incomplete: another process is at work there" in capsys.readouterr().err


def test_a_full_disk_is_said_and_nothing_is_lost(photos, data, capsys):
    before = content(data)
    (data / SHARD).unlink()
    # The largest size of a file stands in for the disk: writing past it fails in the same way.
    limited = [
        "sh",
        "-c",
        'ulimit -f 8; exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "shardstream.ingest",
        "repair",
    ]
    result = subprocess.run([*limited, str(photos), str(data)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"shardstream-ingest: {data}.incomplete: File too large; finished work is kept: fix that and run the same "
        "command again\n"
    )
    assert content(data) == {name: what for name, what in before.items() if name != SHARD}
    assert repair(photos, data, capsys)[0] == 0
    assert content(data) == before


def test_the_command_prints_what_was_wrong_and_what_was_done(photos, data, capsys):
    assert main(["repair", str(photos), str(data)]) == 0
    assert capsys.readouterr().out == "whole: 62 records\n"
    (data / "features.json").unlink()
    assert main(["repair", str(photos), str(data)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("features.json", "missing", "written again from metadata.json"))
    assert printed.endswith("whole: 62 records\n")
