import os

import pytest

from shardstream.ingest.common import atomic_io as whole_files
from shardstream.ingest.common.atomic_io import exchange, open_atomic, recover_swap


@pytest.fixture
def two_folders(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    return tmp_path


def which(folder, name):
    return (folder / name / "which").read_text()


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), open_atomic(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"before"
        raise RuntimeError
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"before")]
    with open_atomic(path) as file:
        file.write(b"after")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"after")]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with open_atomic(tmp_path / "file") as one, open_atomic(tmp_path / "file") as other:
        one.write(b"one")
        other.write(b"other")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"one")]


@pytest.mark.parametrize("can_swap", [True, False], ids=["in one step", "by three renames"])
def test_folders_change_places(two_folders, monkeypatch, can_swap):
    if not can_swap:
        monkeypatch.setattr(whole_files, "_renameat2_exchange", lambda *_: False)  # As on NFS.
    exchange(two_folders / "new", two_folders / "old")
    assert (which(two_folders, "new"), which(two_folders, "old")) == ("old", "new")
    assert sorted(path.name for path in two_folders.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("renames_done", [1, 2])
def test_an_exchange_that_was_killed_between_renames_is_undone_or_done(two_folders, renames_done):
    (two_folders / "old").rename(two_folders / "new.before")
    if renames_done == 2:
        (two_folders / "new").rename(two_folders / "old")
    recover_swap(two_folders / "new", two_folders / "old")
    assert which(two_folders, "old") == ("old" if renames_done == 1 else "new")
    assert not (two_folders / "new.before").exists()


@pytest.mark.parametrize(("name", "is_one"), [("my data", True), ("my", False), ("my data/below", False)])
def test_mount_points_are_known_by_what_the_kernel_says(tmp_path, name, is_one):
    mounts = tmp_path / "mountinfo"
    root = os.fsencode(tmp_path.resolve())
    mounts.write_bytes(b"36 35 98:0 / " + root + b"/my\\040data rw,noatime - ext4 /dev/root rw\nodd\n")
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert whole_files.is_mount_point(tmp_path / name, mounts) == is_one
    assert whole_files.is_mount_point(tmp_path / "link", mounts) == is_one
    assert not whole_files.is_mount_point(tmp_path / name, tmp_path / "no file")
