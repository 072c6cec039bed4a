import errno
import os
import re
import subprocess
import unicodedata

import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.pipeline.listing import shown
from shardstream.ingest.pipeline.scan import scan_folder


@pytest.fixture
def root(tmp_path):
    for path in ("food/b.jpg", "food/a.jpg", "food/deep/er/c.jpg", "food/deep.jpg", "interior/x.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path


def test_nested_files_belong_to_their_category_and_come_in_the_order_of_their_paths(root):
    listing = scan_folder(root)
    assert [(file.path, file.label, file.state.size_bytes) for file in listing] == [
        ("food/a.jpg", 0, 10),
        ("food/b.jpg", 0, 10),
        ("food/deep.jpg", 0, 13),
        ("food/deep/er/c.jpg", 0, 18),
        ("interior/x.jpg", 1, 14),
    ]
    assert [file.path for file in listing] == sorted(file.path for file in listing)
    assert listing[0].state == FileState.of((root / "food/a.jpg").stat())


@pytest.mark.parametrize("secs", [10_000_000_000, -(1 << 31)])
def test_a_time_of_any_century_does_not_matter(root, secs):
    os.utime(root / "food/a.jpg", (secs, secs))
    if (root / "food/a.jpg").stat().st_mtime != secs:
        pytest.skip("the file system has no such times")
    assert scan_folder(root)[0].state.mtime_ns == min(secs * 10**9, (1 << 63) - 1)


def test_the_order_does_not_depend_on_how_the_disk_lists(root, monkeypatch):
    expected = [file.path for file in scan_folder(root)]
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder):
            with scandir(folder) as entries:
                self._entries = list(entries)[::-1]

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [file.path for file in scan_folder(root)] == expected


def test_clutter_is_skipped_and_counted(root):
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini"):
        (root / "food" / name).write_bytes(b"x")
    (root / ".git" / "objects").mkdir(parents=True)
    (root / "readme.txt").write_bytes(b"x")
    os.mkfifo(root / "food" / "pipe.jpg")
    (root / "food" / "deep" / "loop").symlink_to(root / "food")
    listing = scan_folder(root)
    assert len(listing) == 5
    assert dict(listing.skipped) == {
        "hidden": 3,
        "left behind by a system (Thumbs.db)": 1,
        "left behind by a system (desktop.ini)": 1,
        "not images (.txt)": 1,
        "neither file nor folder": 1,
        "links in a circle": 1,
    }


@pytest.mark.parametrize(
    "name",
    [
        *("FOUND.001/y.jpg", "LOST.DIR/y.jpg", "@__thumb/y.jpg", "~snapshot/y.jpg", "_vti_cnf/y.jpg"),
        *("x.jpg:Zone.Identifier:$DATA", "x.jpg:SmartScreen", "x.jpg:com.apple.quarantine"),
        *("x.jpg.dvc", "x.jgw", "x.jpg.part", "x.caption"),
    ],
)
def test_what_systems_and_programs_leave_is_skipped_and_counted(root, name):
    path = root / "food" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"text")
    listing = scan_folder(root)
    assert len(listing) == 5
    assert sum(listing.skipped.values()) == 1


@pytest.mark.parametrize("name", ["found.jpg", "found.0001", "lost", "thumb", "12:30.jpg", "a:com.jpg"])
def test_what_resembles_that_is_an_image(root, name):
    (root / "food" / name).write_bytes(b"x")
    assert f"food/{name}" in {file.path for file in scan_folder(root)}


def test_links_are_followed_and_a_link_to_nothing_is_a_file_to_be_processed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.jpg").write_bytes(b"far")
    (root / "linked").symlink_to(elsewhere)
    (root / "interior" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "interior" / "itself.jpg").symlink_to("itself.jpg")
    inside = {"interior/gone.jpg", "interior/itself.jpg"}
    listing = scan_folder(root)
    assert {file.path for file in listing} & {"linked/far.jpg", *inside} == inside
    assert listing.skipped["links that lead out of IMAGES (--follow-links follows them)"] == 1
    followed = scan_folder(root, layout=Layout(follow_links=True))
    assert {"linked/far.jpg", *inside} <= {file.path for file in followed}


def test_links_in_levels_are_not_four_million_ways_to_one_file(root):
    deep = root / "food" / "levels"
    for level in range(22):
        (deep / str(level)).mkdir(parents=True)
    for level in range(21):
        for name in "ab":
            (deep / str(level) / name).symlink_to(f"../{level + 1}")
    (deep / "21" / "photo.jpg").write_bytes(b"x")
    assert 1 <= sum(file.path.endswith("photo.jpg") for file in scan_folder(root)) <= 9


def test_a_folder_may_be_a_thousand_levels_deep(root):
    here = os.open(root / "food", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    try:
        assert len(scan_folder(root)) == 5
    finally:
        subprocess.run(["rm", "-rf", root / "food/d"], check=True)  # Python's own removal recurses.


def test_the_order_of_the_classes_is_the_users(root):
    listing = scan_folder(root, ["interior", "food"])
    assert listing.class_names == ("interior", "food")
    assert {file.path.split("/")[0]: file.label for file in listing} == {"interior": 0, "food": 1}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_korean_names_are_found_however_they_are_composed(tmp_path, on_disk, typed):
    for name in ("음식", "실내"):
        folder = tmp_path / unicodedata.normalize(on_disk, name)
        folder.mkdir()
        (folder / "사진.jpg").write_bytes(b"x")
    listing = scan_folder(tmp_path, [unicodedata.normalize(typed, name) for name in ("음식", "실내")])
    assert listing.class_names == ("음식", "실내")
    assert all((tmp_path / file.path).is_file() for file in listing)


def test_a_name_that_is_not_utf_8_can_be_written_down(root):
    (root / "food" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert "food/caf\\xe9.jpg" in [shown(file.path) for file in scan_folder(root)]


@pytest.mark.parametrize(
    ("class_names", "sentence"),
    [
        (
            ["food", "outside"],
            "--class-names do not match the classes in {root}: {root} has no outside and interior is not",
        ),
        (["food"], "--class-names do not match the classes in {root}: interior is not named"),
        (
            ["food", "food", "interior"],
            "--class-names do not match the classes in {root}: a name is there twice",
        ),
    ],
)
def test_class_names_that_do_not_match(root, class_names, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence.format(root=root))):
        scan_folder(root, class_names)


def test_folders_that_cannot_be_used(root):
    def assert_refused(folder, sentence):
        with pytest.raises(DatasetError, match=re.escape(sentence)):
            scan_folder(folder)

    assert_refused(root / "nowhere", "nowhere: no such folder")
    assert_refused(root.with_name(root.name[:-1]), f"no such folder; did you mean {root}?")
    assert_refused(root / "food/a.jpg", "food/a.jpg: neither a folder nor a .zip or .tar archive")
    assert_refused(root / "interior", "1 files directly in it and no class folders")
    assert_refused(root / "food", "only one class (deep), a classifier needs at least two")
    (root / "new folder").mkdir()
    assert_refused(root, "new folder: a class folder without images; add images, remove it")
    (root / "new folder").rename(root / " padded")
    assert_refused(root, "class ' padded' has spaces or line breaks around it")
    (root / " padded").rename(root / unicodedata.normalize("NFD", "é"))
    (root / unicodedata.normalize("NFC", "é")).mkdir()
    assert_refused(root, "two classes are called 'é'")


@pytest.mark.parametrize(
    ("error", "times", "expected"),
    [
        (errno.ESTALE, 1, None),
        (errno.EIO, 2, None),
        (errno.ENOENT, 9, "gone before it was listed"),
        (errno.EACCES, 9, "cannot be looked at: Permission denied; make it readable or take it out"),
        (errno.EIO, 9, errno.EIO),
    ],
)
def test_only_a_file_that_is_not_there_is_gone(root, monkeypatch, error, times, expected):
    failures = iter([OSError(error, os.strerror(error))] * times)
    asked = os.stat

    def stat(path, **options):
        if os.fsencode(path).endswith(b"food/b.jpg") and (failure := next(failures, None)):
            raise failure
        return asked(path, **options)

    files = [file.path for file in scan_folder(root)]
    monkeypatch.setattr("shardstream.ingest.common.retries._PAUSES_SECS", (0, 0, 0))
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "lstat", stat)
    if expected is None:
        assert [file.path for file in scan_folder(root)] == files
    elif isinstance(expected, int):
        with pytest.raises(OSError) as raised:
            scan_folder(root)
        assert raised.value.errno == expected
    elif error == errno.ENOENT:
        assert scan_folder(root).skipped[expected] >= 1
    else:
        with pytest.raises(DatasetError, match=expected):
            scan_folder(root)
