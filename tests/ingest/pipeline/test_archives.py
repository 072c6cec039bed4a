"""Archives: the files of the folder, nothing outside, and a sentence for what cannot be read."""

import io
import os
import re
import tarfile
import zipfile

import pytest

from shardstream.ingest.common.errors import DatasetError, MachineError
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.pipeline import archives
from shardstream.ingest.pipeline.scan import scan_folder

FILES = {"cat/1.jpg": b"one", "dog/deep/2.jpg": b"two", "dog/음.jpg": b"three"}


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files=FILES):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def scan(path, **options):
    listing = scan_folder(path, spool=path.parent / "spool", **options)
    read = {
        file.path: (listing.root / listing.location(row)).read_bytes() for row, file in enumerate(listing)
    }
    return listing, read


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("wrapper", ["", "photos/", "down/photos/", "./"])
def test_the_files_are_those_of_the_folder(tmp_path, name, wrapper):
    make = make_zip if name.endswith("zip") else make_tar
    path = make(tmp_path / name, {wrapper + path: content for path, content in reversed(FILES.items())})
    listing, read = scan(path)
    assert read == FILES
    assert [file.path for file in listing] == sorted(FILES, key=os.fsencode)
    assert listing.class_names == ("cat", "dog")


def test_what_was_spooled_is_used_again(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip")
    scan(path)
    monkeypatch.setattr(archives, "_spool", None)
    assert scan(path)[1] == FILES


def test_names_that_lead_out_and_links_are_left_out_and_named(tmp_path):
    files = FILES | {"../out.jpg": b"x", "/abs.jpg": b"x", "cat/../../out.jpg": b"x", "C:\\a.jpg": b"x"}
    listing, read = scan(make_zip(tmp_path / "a.zip", files))
    assert read == FILES
    assert listing.skipped["names that lead out of the archive"] == 4
    assert "../out.jpg, /abs.jpg" in listing.notes[0]
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.zip", "spool"}
    with tarfile.open(make_tar(tmp_path / "b.tar"), "a") as archive:
        for name, kind in (
            ("cat/link.jpg", tarfile.SYMTYPE),
            ("cat/hard.jpg", tarfile.LNKTYPE),
            ("cat/p", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    listing, read = scan(tmp_path / "b.tar")
    assert read == FILES
    assert listing.skipped == {"links in the archive": 2, "neither file nor folder": 1}


def test_clutter_and_globs_are_as_in_folders(tmp_path):
    more = {"__MACOSX/cat/._1.jpg": b"x", "cat/1.json": b"{}", "cat/Thumbs.db": b"x", "dog/draft.png": b"x"}
    listing, read = scan(make_zip(tmp_path / "a.zip", FILES | more), layout=Layout(exclude=("*.png",)))
    assert read == FILES
    assert sum(listing.skipped.values()) == 4
    assert listing.skipped["not images (.json)"] == 1


def test_korean_names_of_windows(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"xxxx/1.jpg": b"1", "yyyy/2.jpg": b"2"})
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"xxxx", "음식".encode("cp949")).replace(b"yyyy", "실내".encode("cp949"))
    )
    assert scan(path)[0].class_names == ("실내", "음식")


def test_backslashes_of_windows_are_folders(tmp_path):
    _, read = scan(make_zip(tmp_path / "a.zip", {"cat\\1.jpg": b"1", "dog\\2.jpg": b"2"}))
    assert read == {"cat/1.jpg": b"1", "dog/2.jpg": b"2"}


def test_a_corrupt_member_is_empty(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace(b"one", b"0ne"))
    listing, read = scan(path)
    assert read == FILES | {"cat/1.jpg": b""}
    assert (
        f"{path}: 1 members are corrupt in the archive, and count as empty files: cat/1.jpg" in listing.notes
    )


@pytest.mark.parametrize("mtime", [float("nan"), float("inf"), 1 << 40, -(1 << 40)])
def test_times_that_are_none_do_not_matter_in_a_tar(tmp_path, mtime):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(content), {"mtime": str(mtime)}
            archive.addfile(info, io.BytesIO(content))
    listing, read = scan(tmp_path / "a.tar")
    assert read == FILES
    assert set(listing.mtimes.tolist()) == {0}


def test_times_that_are_none_do_not_matter_in_a_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip")
    no_date = re.sub(rb"(PK\x01\x02.{8}).{4}", rb"\g<1>\0\0\0\0", path.read_bytes(), flags=re.DOTALL)
    path.write_bytes(no_date)
    assert scan(path)[1] == FILES


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(b"no archive"), "neither a folder nor a .zip or .tar archive"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "a .zip whose end is missing"),
        (
            lambda path: path.write_bytes(
                re.sub(rb"(PK\x01\x02.{4})\0", b"\\g<1>\1", path.read_bytes(), flags=re.DOTALL)
            ),
            "encrypted; unpack it with its password",
        ),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, spoil, sentence):
    path = make_zip(tmp_path / "a.zip")
    spoil(path)
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        scan(path)


def test_a_cut_tar_is_said(tmp_path):
    path = make_tar(tmp_path / "a.tar.gz", {name: os.urandom(50_000) for name in FILES})
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(DatasetError, match="cannot be read: unexpected end of data; get it again"):
        scan(path)


def test_bombs_and_full_disks_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_UNSUSPICIOUS_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", bytes(8 << 20))
    with pytest.raises(DatasetError, match="like a decompression bomb"):
        scan(tmp_path / "a.zip")
    make_tar(tmp_path / "b.tar.gz", {"cat/1.jpg": bytes(8 << 20)})
    monkeypatch.setattr(archives, "_KEPT_FREE_BYTES", 1 << 20)
    with pytest.raises(DatasetError, match="like a decompression bomb"):
        scan(tmp_path / "b.tar.gz")
    monkeypatch.setattr(archives, "_KEPT_FREE_BYTES", 1 << 60)
    with pytest.raises(MachineError, match=re.escape("choose a disk with more space with --work-dir")):
        scan(make_zip(tmp_path / "c.zip"))
