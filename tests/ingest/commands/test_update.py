"""Updated datasets beside ones built from scratch, by real processes on real files."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline import steps

SMALL = ("--image-size", "32", "--workers", "2", "--shard-size", "8KiB", "--max-rejected", "0.5")


def build(images: Path, data: Path, *options: str) -> int:
    return main(["build", str(images), str(data), *SMALL, *options])


def update(images: Path, data: Path, *options: str) -> int:
    return main(["update", str(images), str(data), "--workers", "2", "--max-rejected", "0.5", *options])


def content(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(data.iterdir())}


def assert_as_from_scratch(images: Path, data: Path, tmp_path: Path, *options: str):
    """`data` has the bytes that a new build has, and nothing else lies around."""
    scratch = tmp_path / f"scratch{time.monotonic_ns()}" / data.name
    assert build(images, scratch, *options) == 0
    assert content(data) == content(scratch)
    assert not data.with_name(f"{data.name}.incomplete").exists()


@pytest.fixture
def busy(photos, photo):
    """Photos with duplicates, a conflict, a repaired, a rejected and an unreadable one."""
    (photos / "food/again.jpg").write_bytes((photos / "food/3.jpg").read_bytes())
    (photos / "food/zagain.jpg").write_bytes((photos / "food/3.jpg").read_bytes())
    (photos / "interior/both.jpg").write_bytes((photos / "food/7.jpg").read_bytes())
    (photos / "food/broken.jpg").write_bytes(photo(1)[:-50])
    (photos / "food/gone.jpg").symlink_to(photos / "nowhere")
    (photos / "food/named.jpg").write_bytes(photo(99, file_format="PNG"))
    return photos


def change(photos: Path, photo) -> None:
    """Adds, removes, renames, changes and touches files, originals of duplicates among them."""
    (photos / "food/new.jpg").write_bytes(photo(5000))
    (photos / "exterior/deep").mkdir()
    (photos / "exterior/deep/new.jpg").write_bytes(photo(5001))
    (photos / "exterior/0.jpg").unlink()
    (photos / "food/3.jpg").unlink()  # A duplicate of it takes its place,
    (photos / "interior/both.jpg").unlink()  # a conflict is none any more,
    (photos / "interior/5.jpg").write_bytes(
        (photos / "exterior/5.jpg").read_bytes()
    )  # and here is a new one.
    (photos / "interior/6.jpg").rename(photos / "interior/renamed.jpg")
    (photos / "exterior/7.jpg").write_bytes(photo(5002))
    os.utime(photos / "exterior/8.jpg", ns=(1, 1))
    (photos / "food/broken.jpg").write_bytes(photo(5003))
    (photos / "food/gone.jpg").unlink()
    (photos / "food/gone.jpg").write_bytes(photo(5004))


@pytest.mark.parametrize("options", [(), ("--rehash",)], ids=["by size and time", "by content"])
def test_an_update_gives_the_bytes_of_a_build_from_scratch(busy, tmp_path, photo, options):
    assert build(busy, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    change(busy, photo)
    assert update(busy, tmp_path / "d", *options) == 0
    assert content(tmp_path / "d") != before
    assert_as_from_scratch(busy, tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ("--image-size", "original"),
        ("--image-size", "original", "--check", "header"),
        ("--keep-together", "near-duplicates"),
        ("--keep-together", r"/(\d)"),
        ("--stratify", "--test", "0.2"),
        ("--encoding", "raw", "--seed", "5"),
        ("--class-names", "interior", "food", "exterior", "--display-names", "실내", "음식", "실외"),
    ],
    ids=lambda options: " ".join(options[:4]),
)
def test_an_update_does_as_the_build_did(busy, tmp_path, photo, options):
    assert build(busy, tmp_path / "d", *options) == 0
    change(busy, photo)
    assert update(busy, tmp_path / "d") == 0
    assert_as_from_scratch(busy, tmp_path / "d", tmp_path, *options)


def test_only_what_is_new_or_changed_is_read(busy, tmp_path, photo, capsys):
    assert build(busy, tmp_path / "d") == 0
    (busy / "food/gone.jpg").unlink()
    (busy / "food/new.jpg").write_bytes(photo(5000))
    os.utime(busy / "exterior/8.jpg", ns=(1, 1))
    # Other content with the size and the modification time that it had.
    status = (busy / "food/0.jpg").stat()
    (busy / "food/0.jpg").write_bytes(b"x" * status.st_size)
    os.utime(busy / "food/0.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    shutil.copytree(tmp_path / "d", tmp_path / "distrusted")
    capsys.readouterr()
    assert update(busy, tmp_path / "d", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["num_read"] == 3
    assert printed["verdicts"]["rejected"] == 2
    assert update(busy, tmp_path / "distrusted", "--rehash", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["num_read"] == 66
    assert printed["verdicts"]["rejected"] == 2


def test_nothing_new_leaves_the_dataset_as_it_is(photos, tmp_path, capsys):
    assert build(photos, tmp_path / "d") == 0
    inode = (tmp_path / "d").stat().st_ino
    for options in ((), ("--rehash",)):
        assert update(photos, tmp_path / "d", *options) == 0
        assert (tmp_path / "d").stat().st_ino == inode
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("d")] == ["d"]


def test_look_alikes_in_different_splits_are_told_of_though_nothing_is_new(photos, tmp_path, photo, capsys):
    for number in range(20):  # The same pictures in other bytes: some pairs fall into two splits.
        again = photo(number, comment=b"again")
        (photos / f"food/again{number}.jpg").write_bytes(again)
    assert build(photos, tmp_path / "d", "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert built["num_leaks"] > 0
    assert update(photos, tmp_path / "d", "--json") == 0
    updated = json.loads(capsys.readouterr().out)
    assert (updated["num_read"], updated["leaks"]) == (0, built["leaks"])


def test_nobody_looks_for_look_alikes_where_that_is_switched_off(photos, tmp_path, photo, monkeypatch):
    def look(*_):
        raise AssertionError

    monkeypatch.setattr(steps, "find_leaks", look)
    assert build(photos, tmp_path / "d", "--no-find-look-alikes") == 0
    (photos / "food/new.jpg").write_bytes(photo(5000))
    assert update(photos, tmp_path / "d") == 0
    info = DatasetInfo.load(tmp_path / "d")
    assert (info.find_look_alikes, info.look_alikes) == (False, None)
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path, "--no-find-look-alikes")


def test_a_new_category_takes_its_place_among_the_labels(photos, tmp_path, photo):
    assert build(photos, tmp_path / "d") == 0
    (photos / "garden").mkdir()
    for number in range(8):
        (photos / f"garden/{number}.jpg").write_bytes(photo(7000 + number))
    assert update(photos, tmp_path / "d") == 2
    assert update(photos, tmp_path / "d", "--allow-class-changes") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--class-names", "interior", "food", "exterior"), "do not match the classes"),
        (
            ("--display-names", "실외", "음식", "실내"),
            "nothing says what people are to be shown for the new ones",
        ),
    ],
)
def test_a_new_category_that_has_no_place_is_refused(photos, tmp_path, photo, capsys, options, sentence):
    assert build(photos, tmp_path / "d", *options) == 0
    before = content(tmp_path / "d")
    (photos / "garden").mkdir()
    (photos / "garden/0.jpg").write_bytes(photo(7000))
    capsys.readouterr()
    assert update(photos, tmp_path / "d", "--allow-class-changes") == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
    assert content(tmp_path / "d") == before


def test_a_damaged_dataset_is_not_copied_on(photos, tmp_path, photo, capsys):
    assert build(photos, tmp_path / "d") == 0
    (photos / "bread").mkdir()  # Another number for each class: every shard is written.
    for number in range(8):
        (photos / f"bread/{number}.jpg").write_bytes(photo(7000 + number))
    shards = sorted(tmp_path.glob("d/*.tfrecord*"))
    whole = [shard.read_bytes() for shard in shards]

    def assert_refused(sentence):
        capsys.readouterr()
        assert update(photos, tmp_path / "d", "--allow-class-changes", "--restart") == 2
        errors = capsys.readouterr().err
        assert sentence in errors
        assert "shardstream-ingest repair" in errors
        for shard, right in zip(shards, whole, strict=True):
            shard.write_bytes(right)

    flipped = bytearray(whole[0])
    flipped[len(flipped) // 2] ^= 1
    shards[0].write_bytes(flipped)
    assert_refused("wrong checksum")
    shards[0].write_bytes(whole[1])
    assert_refused("")
    shards[0].write_bytes(whole[0][:-7])
    assert_refused("bytes, metadata says")
    shards[0].unlink()
    assert_refused("No such file")
    assert update(photos, tmp_path / "d", "--allow-class-changes", "--restart") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_killed_in_each_phase_the_old_dataset_stays_until_the_new_is_complete(busy, tmp_path, photo, kill):
    assert build(busy, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    change(busy, photo)
    assert build(busy, tmp_path / "scratch/d") == 0
    after = content(tmp_path / "scratch/d")
    command = [
        sys.executable,
        "-m",
        "shardstream.ingest",
        "update",
        str(busy),
        str(tmp_path / "d"),
        "--max-rejected",
        "0.5",
    ]
    struck = []
    for phase in ("map", "reduce", "assembly"):
        if kill(phase, command, tmp_path / "d"):
            struck.append(phase)
            assert content(tmp_path / "d") == before
    assert "map" in struck  # The others are short: the job may be done before a kill.
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert content(tmp_path / "d") == after
    assert not (tmp_path / "d.incomplete").exists()


@pytest.mark.parametrize("name", ["food/3.jpg", "food/again.jpg", "interior/both.jpg"])
def test_a_copy_takes_the_place_of_one_that_is_gone_where_nothing_else_has_changed(busy, tmp_path, name):
    assert build(busy, tmp_path / "d") == 0
    (busy / name).unlink()
    assert update(busy, tmp_path / "d") == 0
    assert_as_from_scratch(busy, tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    ("free", "said", "num_judged"),
    [(0, "1 files take at least", 0), (2_000, "the new dataset takes", 1)],
)
def test_a_disk_without_room_is_said_before_the_work(
    photos, tmp_path, photo, capsys, monkeypatch, free, said, num_judged
):
    assert build(photos, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 1 << 40, free))
    assert update(photos, tmp_path / "d") == 0  # Nothing is to be written.
    (photos / "food/new.jpg").write_bytes(photo(5000))
    assert update(photos, tmp_path / "d") == 1
    assert said in capsys.readouterr().err
    assert content(tmp_path / "d") == before
    assert len(list((tmp_path / "d.incomplete").rglob("*.verdicts"))) == num_judged
    monkeypatch.undo()
    assert update(photos, tmp_path / "d") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_what_is_refused_before_any_work_leaves_nothing_behind(photos, tmp_path, capsys):
    assert update(photos, tmp_path / "d") == 2
    assert "no such folder; make it with `shardstream-ingest build" in capsys.readouterr().err
    assert build(photos, tmp_path / "d") == 0
    assert update(tmp_path / "nowhere", tmp_path / "d") == 2
    assert not (tmp_path / "d.incomplete").exists()
    (photos / "food/0.jpg").unlink()
    assert update(photos, tmp_path / "d") == 0


def test_what_somebody_keeps_in_the_dataset_is_not_removed_with_it(photos, tmp_path, capsys):
    assert build(photos, tmp_path / "d") == 0
    (photos / "food/0.jpg").unlink()
    (tmp_path / "d/notes.txt").write_text("mine")
    assert update(photos, tmp_path / "d") == 2
    assert (
        f"{tmp_path}/d: holds files that are not part of the dataset and would be lost with it"
        in capsys.readouterr().err
    )
    assert (tmp_path / "d/notes.txt").read_text() == "mine"
    (tmp_path / "d/notes.txt").rename(tmp_path / "d/.DS_Store")
    photos.rename(tmp_path / "d/photos")
    assert update(tmp_path / "d/photos", tmp_path / "d") == 2
    assert "lies inside of DATA" in capsys.readouterr().err
    (tmp_path / "d/photos").rename(photos)
    assert update(photos, tmp_path / "d") == 0
    assert not (tmp_path / "d.incomplete").exists()


def test_a_link_to_a_dataset_stays_a_link(photos, tmp_path):
    assert build(photos, tmp_path / "d") == 0
    (tmp_path / "current").symlink_to("d")
    (photos / "food/0.jpg").unlink()
    before = content(tmp_path / "d")
    assert update(photos, tmp_path / "current") == 0
    assert (tmp_path / "current").is_symlink()
    assert content(tmp_path / "d") == content(tmp_path / "current") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "d", "photos"]


def test_a_dry_run_makes_nothing(busy, tmp_path, photo, capsys):
    assert build(busy, tmp_path / "d", "--dry-run", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["class_counts"] == {"exterior": 20, "food": 25, "interior": 21}
    assert (printed["num_read"], printed["num_sampled"]) == (66, 66)
    assert printed["sampled_verdicts"] == {"ok": 63, "repaired": 1, "rejected": 2}
    assert printed["splits"] == {"train": 51, "validation": 13}
    assert list(tmp_path.iterdir()) == [busy]
    assert build(busy, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    change(busy, photo)
    capsys.readouterr()
    assert update(busy, tmp_path / "d", "--dry-run", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_read"], printed["num_removed"]) == (8, 4)
    assert content(tmp_path / "d") == before


def files(data):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in data.iterdir()}


def test_what_is_unknown_is_no_reason_to_write_a_shard(photos, tmp_path, photo):
    (photos / "food/link.jpg").symlink_to("/nowhere/photo.jpg")
    (photos / "food/a\\b.jpg").write_bytes(photo(900))
    assert build(photos, tmp_path / "d") == 0
    before = files(tmp_path / "d")
    assert update(photos, tmp_path / "d") == 0
    assert files(tmp_path / "d") == before
    for path in photos.rglob("*.jpg"):
        if path.exists():
            os.utime(path, ns=(1, 1))
    assert update(photos, tmp_path / "d") == 0
    after = files(tmp_path / "d")
    assert after.pop("source_state.parquet") != before.pop("source_state.parquet")
    assert after == before
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_where_there_are_no_hard_links_the_same_bytes_are_written_again(photos, tmp_path, monkeypatch):
    assert build(photos, tmp_path / "d") == 0
    os.utime(photos / "food/0.jpg", ns=(1, 1))

    def no_links(self, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert update(photos, tmp_path / "d") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    ("change", "exit_code", "sentence", "option"),
    [
        (lambda photos: shutil.rmtree(photos / "food"), 2, "removed food", ("--allow-class-changes",)),
        (
            lambda photos: (photos / "food").rename(photos / "zoo"),
            2,
            "removed food; added zoo; other label numbers: interior 2 -> 1",
            ("--allow-class-changes",),
        ),
        (
            lambda photos: [(photos / f"food/{number}.jpg").unlink() for number in range(15)],
            3,
            "15 of 60 files are gone",
            ("--max-gone", "0.3"),
        ),
    ],
)
def test_an_update_asks_before_it_drops_what_may_only_be_away(
    photos, tmp_path, capsys, change, exit_code, sentence, option
):
    assert build(photos, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    change(photos)
    assert update(photos, tmp_path / "d") == exit_code
    errors = capsys.readouterr().err
    assert sentence in errors
    assert option[0] in errors
    assert content(tmp_path / "d") == before
    assert update(photos, tmp_path / "d", *option) == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_an_update_says_what_it_changed(photos, tmp_path, photo, capsys):
    assert build(photos, tmp_path / "d") == 0
    (photos / "food/new.jpg").write_bytes(photo(900))
    (photos / "food/1.jpg").write_bytes(photo(901))
    (photos / "food/2.jpg").unlink()
    (photos / "food/3.jpg").rename(photos / "interior/moved.jpg")
    (photos / "food/4.jpg").rename(photos / "food/renamed.jpg")
    capsys.readouterr()
    assert update(photos, tmp_path / "d", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    counts = {name: printed[f"num_{name}"] for name in ("new", "changed", "gone", "moved", "renamed")}
    assert counts == {"new": 1, "changed": 1, "gone": 1, "moved": 1, "renamed": 1}


def test_records_of_other_versions_are_told_of_and_made_anew_on_demand(photos, tmp_path, photo, caplog):
    assert build(photos, tmp_path / "d") == 0
    path = tmp_path / "d/metadata.json"
    built = json.loads(path.read_text())
    assert {"shardstream", "simplejpeg", "pillow", "numpy", "opencv"} <= built["versions"].keys()
    info = dataclasses.replace(
        DatasetInfo.load(tmp_path / "d"), versions={**built["versions"], "pillow": "1.0"}
    )
    info.save(tmp_path / "d")
    (photos / "food/0.jpg").unlink()
    assert update(photos, tmp_path / "d") == 0
    assert "pillow 1.0 (now " in caplog.text
    assert json.loads(path.read_text())["versions"]["pillow"] == "1.0"  # No record was made.
    (photos / "food/new.jpg").write_bytes(photo(5000))
    assert update(photos, tmp_path / "d") == 0
    assert json.loads(path.read_text())["versions"]["pillow"].startswith("1.0 + ")
    assert update(photos, tmp_path / "d", "--rehash") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)
