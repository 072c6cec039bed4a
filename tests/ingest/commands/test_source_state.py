"""Updates that recognize unchanged files by size, times and inode, by real commands on real files."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.ingest.__main__ import main
from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import METADATA_KEY
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.parquet_files import make_writer
from shardstream.ingest.dataset.source_state import FILENAME as SOURCE_STATE

SMALL = ("--image-size", "32", "--workers", "1", "--shard-size", "8KiB")
NUM_FILES = 60


def build(images: Path, data: Path, *options: str) -> int:
    return main(["build", str(images), str(data), *SMALL, *options])


@pytest.fixture
def update(capsys, caplog):
    """A function that updates a dataset, and returns how many files were read and what was logged."""

    def run(images: Path, data: Path, *options: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        caplog.clear()
        assert main(["update", str(images), str(data), "--workers", "1", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["num_read"], list(caplog.messages)

    return run


def content(data: Path) -> dict[str, bytes]:
    """Returns the bytes of the dataset, which do not depend on the times of the photos."""
    return {path.name: path.read_bytes() for path in sorted(data.iterdir()) if path.name != SOURCE_STATE}


def inodes(data: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in data.iterdir() if path.name != SOURCE_STATE}


def assert_as_from_scratch(images: Path, data: Path, tmp_path: Path, *options: str) -> None:
    scratch = tmp_path / f"scratch{time.monotonic_ns()}" / data.name
    assert build(images, scratch, *options) == 0
    assert content(data) == content(scratch)
    assert (data / SOURCE_STATE).read_bytes() == (scratch / SOURCE_STATE).read_bytes()


def sized(photo, seed: int, num_bytes: int = 3000) -> bytes:
    """Returns a photo of exactly `num_bytes`."""
    smallest = len(photo(seed, comment=b"x"))
    return photo(seed, comment=b"x" * (1 + num_bytes - smallest))


def overwrite(path: Path, new: bytes) -> None:
    path.write_bytes(new)


def replace(path: Path, new: bytes) -> None:
    path.with_name("new").write_bytes(new)
    path.with_name("new").replace(path)


def change_with_times_restored(path: Path, new: bytes, change=overwrite) -> None:
    """Gives a file other content, and the size and the modification time that it had."""
    before = path.stat()
    change(path, new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_the_times_of_the_photos_are_in_source_state_alone(photos, tmp_path):
    copies = shutil.copytree(photos, tmp_path / "copies", copy_function=shutil.copy)
    for number, path in enumerate(sorted(copies.rglob("*.jpg"))):
        os.utime(path, ns=(number, number))
    assert build(photos, tmp_path / "1/d") == 0
    assert build(copies, tmp_path / "2/d") == 0
    assert content(tmp_path / "1/d") == content(tmp_path / "2/d")
    assert (tmp_path / "1/d" / SOURCE_STATE).read_bytes() != (tmp_path / "2/d" / SOURCE_STATE).read_bytes()
    rows = zip(
        pq.read_table(tmp_path / "2/d" / MANIFEST)["path"].to_pylist(),
        pq.read_table(tmp_path / "2/d" / SOURCE_STATE).to_pylist(),
        strict=True,
    )
    for path, row in rows:
        status = (copies / path).stat()
        assert row == {
            "size_bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,
            "inode": status.st_ino,
        }


@pytest.mark.parametrize("change", [overwrite, replace])
def test_other_content_is_seen_though_size_and_modification_time_are_restored(
    photos, tmp_path, photo, update, change
):
    (photos / "food/a.jpg").write_bytes(sized(photo, 5000))
    assert build(photos, tmp_path / "d") == 0
    before = content(tmp_path / "d")
    change_with_times_restored(photos / "food/a.jpg", sized(photo, 5001), change)
    assert update(photos, tmp_path / "d") == (1, [])
    assert content(tmp_path / "d") != before
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_other_content_is_seen_by_a_job_that_resumes(photos, tmp_path, photo, update):
    (photos / "food/a.jpg").write_bytes(sized(photo, 5000))
    (photos / "food/broken.jpg").write_bytes(photo(1)[:-50])
    assert build(photos, tmp_path / "d", "--max-rejected", "0") == 3
    assert list((tmp_path / "d.incomplete/units").rglob("*.verdicts"))
    change_with_times_restored(photos / "food/a.jpg", sized(photo, 5001))
    assert build(photos, tmp_path / "d", "--max-rejected", "0.5") == 0
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path, "--max-rejected", "0.5")


@pytest.mark.parametrize("column", ["size_bytes", "mtime_ns", "ctime_ns", "inode"])
def test_a_file_is_unchanged_only_if_all_of_its_state_is(photos, tmp_path, update, column):
    assert build(photos, tmp_path / "d") == 0
    table = pq.read_table(tmp_path / "d" / SOURCE_STATE)
    values = table[column].to_numpy().copy()
    values[[7, 30]] += np.ones(1, values.dtype)
    table = table.set_column(table.column_names.index(column), table.schema.field(column), pa.array(values))
    pq.write_table(table, tmp_path / "d" / SOURCE_STATE)
    before = inodes(tmp_path / "d")
    assert update(photos, tmp_path / "d") == (2, [])
    assert inodes(tmp_path / "d") == before
    assert update(photos, tmp_path / "d") == (0, [])


def test_a_copy_of_the_photos_is_read_once_and_nothing_is_written_anew(photos, tmp_path, update):
    assert build(photos, tmp_path / "d") == 0
    before = inodes(tmp_path / "d")
    copies = shutil.copytree(photos, tmp_path / "copies")
    assert update(copies, tmp_path / "d") == (NUM_FILES, [])
    assert inodes(tmp_path / "d") == before
    assert update(copies, tmp_path / "d") == (0, [])
    assert_as_from_scratch(copies, tmp_path / "d", tmp_path)
    assert not (tmp_path / "d.incomplete").exists()


def test_why_files_with_the_same_content_are_read_is_said(photos, tmp_path, capsys):
    assert build(photos, tmp_path / "d") == 0
    touched = sorted(photos.rglob("*.jpg"))[:7]
    for path in touched:
        os.utime(path, ns=(1, 1))
    said = {}
    for time_ in ("first", "second"):
        capsys.readouterr()
        assert main(["update", str(photos), str(tmp_path / "d"), "--workers", "1"]) == 0
        said[time_] = capsys.readouterr().out
    reason = "read again, for another size, time or inode than before: 7"
    assert reason in said["first"].splitlines()
    assert f"{NUM_FILES} files, 7 of them read" in said["first"]
    assert "than before" not in said["second"]


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def plant_link(path: Path) -> None:
    path.rename(path.parent.parent / "victim")
    path.symlink_to("../victim")


def plant_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def take_that_of_another(path: Path) -> None:
    """A manifest with as many rows, of other photos."""
    table = pq.read_table(path)
    metadata = {b"manifest_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("is_new", [False, True], ids=["nothing new", "a new photo"])
@pytest.mark.parametrize("harm", [remove, cut, plant_link, plant_pipe, take_that_of_another])
def test_without_the_states_every_file_is_read_and_said(photos, tmp_path, photo, update, harm, is_new):
    assert build(photos, tmp_path / "d") == 0
    harm(tmp_path / "d" / SOURCE_STATE)
    victim = (tmp_path / "victim").read_bytes() if harm is plant_link else b""
    assert main(["verify", str(tmp_path / "d"), "--workers", "1"]) == 0
    if is_new:
        (photos / "food/new.jpg").write_bytes(photo(5000))
    for options in (("--dry-run",), ()):
        num_read, (sentence,) = update(photos, tmp_path / "d", *options)
        assert num_read == NUM_FILES + is_new
        assert sentence.startswith(f"{tmp_path}/d/source_state.parquet: ")
        assert sentence.endswith("; every file is read again")
        assert "\n" not in sentence
    assert update(photos, tmp_path / "d") == (0, [])
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)
    if harm is plant_link:
        assert (tmp_path / "victim").read_bytes() == victim


def test_a_folder_in_its_place_is_kept(photos, tmp_path, photo, update):
    assert build(photos, tmp_path / "d") == 0
    (tmp_path / "d" / SOURCE_STATE).unlink()
    (tmp_path / "d" / SOURCE_STATE).mkdir()
    (tmp_path / "d" / SOURCE_STATE / "mine").write_text("mine")
    num_read, said = update(photos, tmp_path / "d")
    assert num_read == NUM_FILES
    path = tmp_path / "d" / SOURCE_STATE
    assert said == [
        f"{path}: not a regular file; every file is read again",
        f"{path}: not written: Is a directory; the next update reads every file again",
    ]
    assert (tmp_path / "d" / SOURCE_STATE / "mine").read_text() == "mine"
    (photos / "food/new.jpg").write_bytes(photo(5000))
    assert f"{tmp_path}/d.previous: kept" in update(photos, tmp_path / "d")[1][1]
    assert (tmp_path / "d.previous" / SOURCE_STATE / "mine").read_text() == "mine"
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_after_a_repair_of_the_manifest_changes_are_still_seen(photos, tmp_path, photo, update):
    (photos / "food/a.jpg").write_bytes(sized(photo, 5000))
    assert build(photos, tmp_path / "d") == 0
    (tmp_path / "d" / MANIFEST).write_bytes(b"")
    assert main(["repair", str(photos), str(tmp_path / "d"), "--workers", "1"]) == 0
    assert update(photos, tmp_path / "d") == (0, [])
    change_with_times_restored(photos / "food/a.jpg", sized(photo, 5001))
    assert update(photos, tmp_path / "d") == (1, [])
    assert_as_from_scratch(photos, tmp_path / "d", tmp_path)


def test_members_of_an_archive_are_unchanged_as_long_as_the_archive_is(photos, tmp_path, photo, update):
    def pack(seed: int) -> None:
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(photos.rglob("*.jpg")):
                packed.writestr(zipfile.ZipInfo(str(path.relative_to(photos))), path.read_bytes())
            packed.writestr(zipfile.ZipInfo("food/a.jpg"), sized(photo, seed))

    archive, data = tmp_path / "photos.zip", tmp_path / "d"
    pack(5000)
    assert build(archive, data) == 0
    assert update(archive, data) == (0, [])
    before = inodes(data)
    os.utime(archive)
    assert update(archive, data) == (NUM_FILES + 1, [])
    assert inodes(data) == before
    status = archive.stat()
    pack(5001)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert archive.stat().st_size == status.st_size
    assert update(archive, data) == (NUM_FILES + 1, [])
    assert_as_from_scratch(archive, data, tmp_path)


@pytest.fixture
def old(photos, tmp_path):
    """A dataset as shardstream 0.2.0 wrote it: modification times in the manifest."""
    data = tmp_path / "d"
    assert build(photos, data) == 0
    (data / SOURCE_STATE).unlink()
    table = pq.read_table(data / MANIFEST)
    times = [(photos / path).stat().st_mtime_ns for path in table["path"].to_pylist()]
    table = table.add_column(2, "mtime_ns", pa.array(times))
    info = DatasetInfo.load(data)
    schema = table.schema.with_metadata({METADATA_KEY: info.with_manifest("").encode()})
    with (data / MANIFEST).open("wb") as file, make_writer(file, schema) as writer:
        writer.write_table(table.cast(schema))
    info.with_manifest(file_sha256(data / MANIFEST)).save(data)
    return data


def test_an_old_dataset_is_verified_and_repaired_as_it_is(photos, old, update):
    assert main(["verify", str(old), "--workers", "1"]) == 0
    before = content(old)
    for name in (MANIFEST, "metadata.json", "index.npy"):
        (old / name).unlink()
        assert main(["repair", str(photos), str(old), "--workers", "1"]) == 0
        assert content(old) == before


def test_the_first_update_of_an_old_dataset_reads_every_file(photos, old, tmp_path, update):
    before = {name: inode for name, inode in inodes(old).items() if ".tfrecord" in name}
    num_read, said = update(photos, old)
    assert num_read == NUM_FILES
    assert said == [f"{old}/source_state.parquet: missing; every file is read again"]
    assert before.items() <= inodes(old).items()
    assert_as_from_scratch(photos, old, tmp_path)
    assert update(photos, old) == (0, [])
