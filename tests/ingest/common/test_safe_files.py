"""Files of strangers: regular ones alone are read, within their size, and any failure of a parser is one sentence."""

import errno
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.common.locks import lock_file
from shardstream.ingest.common.safe_files import open_regular, parse_errors, read_regular, refuse_link


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"content"
    with pytest.raises(OSError, match="7 bytes, expected at most 6"):
        read_regular(tmp_path / "file", max_bytes=6)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [make_fifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()],
    ids=["pipe", "device", "folder"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(OSError, match="not a regular file"), open_regular(tmp_path / "x"):
        pass


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("too deep"),
        MemoryError(),
        OverflowError("int too large"),
        KeyError("x"),
        TypeError("unhashable"),
        AttributeError("no attribute"),
        struct.error("unpack"),
        zipfile.BadZipFile("not a zip"),
        json.JSONDecodeError("bad", "doc", 0),
        OSError(errno.EINVAL, "not a regular file"),
        OSError("from Arrow, without a number"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_parser_raises_is_one_sentence(error):
    with pytest.raises(DatasetError, match=r"^file: .*; do this$"), parse_errors(Path("file"), "do this"):
        raise error


def test_errors_of_the_machine_stay_what_they_are():
    with pytest.raises(OSError, match="Input/output"), parse_errors(Path("file"), "do this"):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(KeyboardInterrupt), parse_errors(Path("file"), "do this"):
        raise KeyboardInterrupt


def test_a_link_or_another_thing_at_a_name_of_ours_is_refused(tmp_path):
    refuse_link(tmp_path / "nothing")
    refuse_link(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    refuse_link(tmp_path / "file", kind="file")
    for name in ("link", "file"):
        with pytest.raises(ConfigError, match=name):
            refuse_link(tmp_path / name)


def test_a_lock_file_that_is_somebodys_is_neither_changed_nor_removed(tmp_path):
    path = tmp_path / "d.lock"
    path.write_text("mine")
    with lock_file(path, busy="busy"), pytest.raises(ConfigError, match="busy"), lock_file(path, busy="busy"):
        pass
    assert path.read_text() == "mine"
    path.unlink()
    with lock_file(path, busy="busy"):
        assert path.exists()
    assert not path.exists()
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="a link"), lock_file(path, busy="busy"):
        pass
    assert not (tmp_path / "victim").exists()
