"""Whole builds, by real processes on real files."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.common.locks import lock_file
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import decode_example, read_records

CLASSES = ("--class-names", "food", "interior", "exterior")
SMALL = ("--image-size", "32", "--workers", "2")


def build(images: Path, data: Path, *options: str) -> int:
    return main(["build", str(images), str(data), *CLASSES, *SMALL, *options])


def content(data: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(data.iterdir())}


def records(data: Path) -> dict[str, dict]:
    """Returns the features of each record, and its split, shard and position, by the path of its source."""
    found = {}
    for split in DatasetInfo.load(data).splits.values():
        for number, shard in enumerate(split.shards):
            with (data / shard.filename).open("rb") as file:
                for position, record in enumerate(read_records(file)):
                    features = decode_example(record.payload)
                    place = {"split": split.name, "shard": number, "position": position}
                    found[features["image/filename"].decode()] = features | place
    return found


def manifest(data: Path) -> dict[str, dict]:
    return {row["path"]: row for row in pq.read_table(data / "manifest.parquet").to_pylist()}


def splits(data: Path) -> dict[str, str]:
    """Returns the split of each kept file by the hash of its content."""
    return {row["sha256"]: row["split"] for row in manifest(data).values() if row["split"]}


def test_every_photo_is_in_one_record_with_its_label(photos, tmp_path, capsys):
    data = tmp_path / "new/folders/d"
    assert build(photos, data, "--display-names", "음식", "실내", "실외") == 0
    info = DatasetInfo.load(data)
    found = records(data)
    assert info.class_names == ("food", "interior", "exterior")
    assert len(found) == 60
    for path, features in found.items():
        source = (photos / path).read_bytes()
        assert features["label"] == info.class_names.index(path.split("/")[0])
        assert features["image/sha256"].decode() == hashlib.sha256(source).hexdigest()
        assert (features["image/height"], features["image/width"]) == (32, 32)
        assert (features["image/source_height"], features["image/source_width"]) == (40, 60)
    assert "food (음식)" in capsys.readouterr().out
    assert [path.name for path in data.parent.iterdir()] == ["d"]


def test_the_same_bytes_for_any_number_of_workers(photos, tmp_path):
    for workers in ("1", "2", "3"):
        (tmp_path / workers).mkdir()
        assert build(photos, tmp_path / workers / "d", "--workers", workers, "--shard-size", "8KiB") == 0
    first = content(tmp_path / "1/d")
    assert sum("tfrecord" in name for name in first) > 4
    assert content(tmp_path / "2/d") == first
    assert content(tmp_path / "3/d") == first


def test_the_manifest_leads_from_every_file_to_its_record(photos, tmp_path, photo):
    (photos / "food/again.jpg").write_bytes((photos / "food/3.jpg").read_bytes())
    (photos / "interior/both.jpg").write_bytes((photos / "food/7.jpg").read_bytes())
    (photos / "food/broken.jpg").write_bytes(photo(1)[:-50])
    (photos / "food/gone.jpg").symlink_to(photos / "nowhere")
    (photos / "food/named.jpg").write_bytes(photo(99, file_format="PNG"))
    assert build(photos, tmp_path / "d", "--max-rejected", "0.05", "--shard-size", "8KiB") == 0
    rows, found = manifest(tmp_path / "d"), records(tmp_path / "d")

    assert set(rows) == {f"{path.parent.name}/{path.name}" for path in photos.rglob("*.jpg")}
    assert {
        path: (row["verdict"], row["reason"]) for path, row in rows.items() if row["verdict"] != "ok"
    } == {
        # The first by path is kept; under two classes, none.
        "food/again.jpg": ("duplicate", "same content as food/3.jpg"),
        "food/7.jpg": ("conflict", "multi-label: the same image is under other classes too"),
        "interior/both.jpg": (
            "conflict",
            "multi-label: the same image is under several classes, first as food/7.jpg",
        ),
        "food/broken.jpg": ("rejected", rows["food/broken.jpg"]["reason"]),
        "food/gone.jpg": ("rejected", "cannot be read: No such file or directory"),
        "food/named.jpg": ("repaired", "PNG named .jpg"),
    }
    assert rows["food/broken.jpg"]["reason"].startswith("corrupt JPEG: ")
    assert {path for path, row in rows.items() if row["split"]} == set(found)
    for path, features in found.items():
        row = rows[path]
        assert [row[key] for key in ("split", "shard", "position")] == [
            features[key] for key in ("split", "shard", "position")
        ]
        assert row["size_bytes"] == (photos / path).stat().st_size
    assert DatasetInfo.load(tmp_path / "d").verdicts == {
        "ok": 59,
        "repaired": 1,
        "duplicate": 1,
        "conflict": 2,
        "rejected": 2,
    }


def test_files_that_come_go_or_are_renamed_move_no_other(photos, tmp_path, photo):
    assert build(photos, tmp_path / "before") == 0
    before = splits(tmp_path / "before")
    for number in range(10):
        (photos / f"food/new{number}.jpg").write_bytes(photo(5000 + number))
        (photos / f"interior/{number}.jpg").rename(photos / f"interior/renamed{number}.jpg")
    (photos / "exterior/0.jpg").unlink()
    assert build(photos, tmp_path / "after") == 0
    after = splits(tmp_path / "after")
    common = before.keys() & after.keys()
    assert len(common) == 59
    assert {key: before[key] for key in common} == {key: after[key] for key in common}


def test_files_of_a_group_go_to_the_same_split(photos, tmp_path, capsys):
    for path in sorted(photos.rglob("*.jpg")):  # "house7_0.jpg", "house7_1.jpg", ...
        path.rename(path.with_name(f"house{int(path.stem) // 4}_{int(path.stem) % 4}.jpg"))
    assert build(photos, tmp_path / "d", "--keep-together", r"house(\d+)_", "--validation", "0.4") == 0
    splits_of = {}
    for path, row in manifest(tmp_path / "d").items():
        splits_of.setdefault(path.split("house")[1].split("_")[0], set()).add(row["split"])
    assert len(splits_of) == 5
    assert all(len(found) == 1 for found in splits_of.values())
    assert set.union(*splits_of.values()) == {"train", "validation"}
    assert DatasetInfo.load(tmp_path / "d").split_rule.keep_together == r"house(\d+)_"
    # What does not match goes by its own content, as without the option.
    assert build(photos, tmp_path / "none", "--keep-together", "(no such path)") == 0
    assert build(photos, tmp_path / "plain") == 0
    assert splits(tmp_path / "none") == splits(tmp_path / "plain")
    capsys.readouterr()
    for pattern, sentence in {
        "(": "not a regular expression",
        "house": "neither duplicates nor near-duplicates, and a regular expression without a group",
    }.items():
        assert build(photos, tmp_path / "x", "--keep-together", pattern) == 2
        assert f"--keep-together {pattern}: {sentence}" in capsys.readouterr().err


def test_options_reach_the_dataset(photos, tmp_path):
    options = ("--validation", "0.3", "--test", "0.3", "--seed", "5", "--encoding", "png", "--resize", "pad")
    assert build(photos, tmp_path / "d", *options) == 0
    info = DatasetInfo.load(tmp_path / "d")
    assert (info.split_rule.seed, info.split_rule.fractions) == (5, {"validation": 0.3, "test": 0.3})
    assert (info.image.encoding, info.image.resize, info.image.size) == ("png", "pad", 32)
    assert set(info.splits) == {"train", "validation", "test"}
    assert all(features["image"].startswith(b"\x89PNG") for features in records(tmp_path / "d").values())


def command(images: Path, data: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "shardstream.ingest",
        "build",
        str(images),
        str(data),
        *CLASSES,
        *SMALL,
        *options,
    ]


@pytest.mark.parametrize("phase", ["map", "reduce", "assembly"])
def test_killed_in_a_phase_and_started_again_gives_the_same_bytes(make_photos, tmp_path, kill, phase):
    photos = make_photos(tmp_path / "photos", num_photos=200)  # Enough work that each phase can be met.
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    options = ("--shard-size", "4KiB")
    assert build(photos, tmp_path / "whole/d", *options) == 0
    data = tmp_path / "killed/d"
    for _ in range(10):
        if kill(phase, command(photos, data, *options), data):
            break
        shutil.rmtree(data)  # It was quicker than the kill.
    else:
        pytest.fail(f"no kill struck in the phase {phase!r}")
    assert not data.exists()
    assert subprocess.run(command(photos, data, *options), capture_output=True, check=False).returncode == 0
    assert content(data) == content(tmp_path / "whole/d")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_work_in_a_sentence(photos, tmp_path, number, exit_code):
    for copy in range(60):  # Enough work that it is still going on.
        shutil.copytree(photos / "food", photos / f"interior/{copy}")
    with subprocess.Popen(command(photos, tmp_path / "d"), stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("d.incomplete/units/*/*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate()
    assert (process.returncode, errors.count("\n")) == (exit_code, 1)
    assert errors.startswith("shardstream-ingest: stopped by ")
    assert not (tmp_path / "d").exists()


def test_a_full_disk_is_said_and_what_was_done_is_kept(photos, tmp_path):
    # The largest size of a file stands in for the disk: writing past it fails in the same way.
    limited = ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh", *command(photos, tmp_path / "d")]
    result = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"shardstream-ingest: {tmp_path}/d.incomplete: File too large; finished work is kept: fix that and run "
        "the same command again\n"
    )
    assert not (tmp_path / "d").exists()
    assert build(photos, tmp_path / "d") == 0


def test_photos_that_go_away_are_said_and_nothing_is_lost(photos, tmp_path):
    shutil.copytree(photos / "food", tmp_path / "food")
    for copy in range(60):  # Enough work that it is still going on.
        shutil.copytree(tmp_path / "food", photos / f"food/{copy}")
    with subprocess.Popen(command(photos, tmp_path / "d"), stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("d.incomplete/units/*/*.verdicts")):
            assert process.poll() is None
            time.sleep(0.01)
        photos.rename(tmp_path / "unplugged")
        _, errors = process.communicate()
    assert (process.returncode, errors.count("\n")) == (1, 1)
    assert "disappeared while it was read" in errors
    (tmp_path / "unplugged").rename(photos)
    assert build(photos, tmp_path / "d") == 0
    assert build(photos, tmp_path / "scratch/d") == 0
    assert content(tmp_path / "d") == content(tmp_path / "scratch/d")


def test_a_build_that_was_killed_at_its_very_end_is_finished_by_the_same_command(photos, tmp_path, capsys):
    (photos / "food/bad.jpg").write_bytes(b"text")
    place = tmp_path / "d.incomplete"
    assert build(photos, tmp_path / "d") == 3  # Leaves its work.
    shutil.copytree(place, tmp_path / "left")
    assert build(photos, tmp_path / "d", "--max-rejected", "1") == 0
    before = content(tmp_path / "d")
    for options, exit_code in ((("--seed", "5"), 2), (("--restart",), 2), ((), 0)):
        shutil.copytree(tmp_path / "left", place, dirs_exist_ok=True)
        capsys.readouterr()
        assert build(photos, tmp_path / "d", "--max-rejected", "1", *options) == exit_code
        assert ("exists already" in capsys.readouterr().err) == (exit_code == 2)
        assert content(tmp_path / "d") == before
    assert not place.exists()


def test_work_in_progress_lies_where_it_is_told_to(photos, tmp_path, capsys):
    (photos / "food/bad.jpg").write_bytes(b"text")
    assert build(photos, tmp_path / "d", "--work-dir", str(tmp_path / "fast")) == 3  # Leaves its work.
    assert list((tmp_path / "fast").rglob("*.pictures"))
    assert not list((tmp_path / "d.incomplete").rglob("*.pictures"))
    capsys.readouterr()
    assert build(photos, tmp_path / "d", "--max-rejected", "1") == 2
    assert f"--work-dir was {tmp_path}/fast, now it is None" in capsys.readouterr().err
    assert build(photos, tmp_path / "d", "--max-rejected", "1", "--work-dir", str(tmp_path / "fast")) == 0
    assert not list((tmp_path / "fast").iterdir())


IN_OPEN = 0x20  # Source: man 7 inotify.


def opened_files(folders: list[Path], action: Callable[[], object]) -> Counter[str]:
    """Returns how often each file in `folders` was opened, by any process, while `action` ran."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    watched = {libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_OPEN): folder for folder in folders}
    assert all(number > 0 for number in watched)
    found: Counter[str] = Counter()
    action()
    with open(descriptor, "rb", buffering=0) as events:  # noqa: PTH123 - It has no path.
        while chunk := events.read(1 << 16):
            position = 0
            while position < len(chunk):
                number, _, _, length = struct.unpack_from("iIII", chunk, position)
                name = chunk[position + 16 : position + 16 + length].rstrip(b"\0").decode()
                if name:  # Without a name it is the folder itself.
                    found[f"{watched[number].name}/{name}"] += 1
                position += 16 + length
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--image-size", "original"),
        ("--image-size", "original", "--check", "header"),
        ("--encoding", "raw", "--keep-together", "near-duplicates"),
    ],
    ids=" ".join,
)
def test_each_file_is_opened_once_whatever_the_options(photos, tmp_path, photo, options):
    (photos / "food/again.jpg").write_bytes((photos / "food/3.jpg").read_bytes())
    (photos / "food/broken.jpg").write_bytes(photo(1)[:-50])
    (photos / "food/turned.jpg").write_bytes(
        photo(2, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    )
    (photos / "food/named.jpg").write_bytes(photo(99, file_format="PNG"))
    (photos / "food/web.webp").write_bytes(photo(98, file_format="WEBP"))

    def act():
        assert build(photos, tmp_path / "d", "--max-rejected", "1", *options) == 0

    found = opened_files(list(photos.iterdir()), act)
    assert set(found) == {f"{path.parent.name}/{path.name}" for path in photos.rglob("*.*")}
    assert set(found.values()) == {1}


def test_two_builds_at_once_into_one_place_are_refused(photos, tmp_path, capsys):
    (tmp_path / "d.incomplete").mkdir()
    with lock_file(tmp_path / "d.lock", busy="busy"):
        assert build(photos, tmp_path / "d") == 2
    assert "d.incomplete: another process is at work there" in capsys.readouterr().err
    assert build(photos, tmp_path / "d") == 0


def test_unfinished_work_of_other_options_is_not_mixed_with_new(photos, tmp_path, capsys):
    (photos / "food/bad.jpg").write_bytes(b"text")
    assert build(photos, tmp_path / "d") == 3  # Leaves its work.
    capsys.readouterr()
    assert build(photos, tmp_path / "d", "--quality", "50", "--image-size", "16", "--max-rejected", "1") == 2
    assert capsys.readouterr().err == (
        f"shardstream-ingest: {tmp_path}/d.incomplete: holds unfinished work of other options: --image-size was 32, "
        "now it is 16; --quality was 95, now it is 50. Give the same options to go on with it, or --restart to throw "
        "it away\n"
    )
    assert build(photos, tmp_path / "d", "--image-size", "16", "--max-rejected", "1", "--restart") == 0
    assert DatasetInfo.load(tmp_path / "d").image.size == 16


def test_too_many_rejected_files_make_nothing(photos, tmp_path, capsys):
    for number in range(3):
        (photos / f"food/bad{number}.jpg").write_bytes(b"text")
    assert build(photos, tmp_path / "d") == 3
    assert capsys.readouterr().err == (
        "shardstream-ingest: 3 of 63 files were rejected, more than --max-rejected 0.01 allows; the first is "
        "food/bad0.jpg: not an image: text. All are listed in "
        f"{tmp_path}/d.incomplete/rejected.csv. Fix or remove them, or raise the limit: the work done so far is kept "
        "and used again\n"
    )
    listed = (tmp_path / "d.incomplete/rejected.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == [
        "path",
        *(f"food/bad{number}.jpg" for number in range(3)),
    ]
    assert not (tmp_path / "d").exists()
    assert build(photos, tmp_path / "d", "--max-rejected", "0.05") == 0


def test_input_that_cannot_become_a_dataset(photos, tmp_path, capsys):
    def assert_refused(sentence: str, *options: str, data: Path = tmp_path / "d"):
        assert build(photos, data, *options) == 2
        errors = capsys.readouterr().err
        assert sentence in errors
        assert errors.count("\n") == 1
        assert not data.exists() or data.name in {"taken", "..", ""}

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    assert_refused(f"{tmp_path}/taken exists already: bring it up to date", data=tmp_path / "taken")
    (tmp_path / "file").write_text("no folder")
    assert_refused(f"{tmp_path}/file/d.lock: Not a directory", data=tmp_path / "file/d")
    assert_refused("lies inside of IMAGES", data=photos / "d")
    assert_refused("--image-size has to be original or 1 to 8,192, got 0", "--image-size", "0")
    assert_refused("--image-size has to be original or 1 to 8,192, got 99999", "--image-size", "99999")
    assert_refused("lies inside of IMAGES", "--work-dir", str(photos / "food"))
    assert_refused("lies inside of DATA", "--work-dir", str(tmp_path / "d/work"))
    assert_refused("--display-names: a name is empty", "--display-names", "a", "", "c")
    assert_refused("under that name; got .: write", data=Path())
    assert_refused("under that name; got ..: write", data=Path(".."))
    assert_refused("under that name; got /\n", data=Path("/"))
    assert_refused("--quality has to be 1 to 100, got 101", "--quality", "101")
    assert_refused("--workers has to be positive, got 0", "--workers", "0")
    assert_refused("--shard-size has to be like 64MiB or 1GB, got 'big'", "--shard-size", "big")
    assert_refused("--display-names has 2 names, --class-names has 3", "--display-names", "a", "b")
    assert_refused("--encoding raw needs an --image-size", "--encoding", "raw", "--image-size", "original")
    assert_refused(
        "split 'validation' would be empty: a share of 1e-05 of 60 images", "--validation", "0.00001"
    )
    for path in (photos / "exterior").iterdir():
        path.write_bytes(b"")
    assert_refused("holds unfinished work of other options", "--quality", "90")
    assert_refused("category 'exterior' has no usable image; its files: 20 rejected", "--max-rejected", "1")


def test_json_is_for_machines(photos, tmp_path, capsys):
    assert build(photos, tmp_path / "d", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdicts"]["ok"] == 60
    assert sum(split["num_examples"] for split in printed["splits"].values()) == 60
    assert main(["info", str(tmp_path / "d"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == printed["fingerprint"]
