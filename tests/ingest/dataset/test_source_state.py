"""source_state.parquet, as written and as somebody else may have left it."""

import os
import re
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset import source_state
from shardstream.ingest.dataset.source_state import (
    FILENAME,
    FileState,
    check_source_states,
    read_source_states,
    write_source_states,
)

NUM_FILES = 70_000  # Two row groups.
DIGEST = "ab" * 32
INT64, UINT64 = pa.int64(), pa.uint64()


@pytest.fixture(scope="module")
def columns():
    generator = np.random.default_rng(1)
    sizes, mtimes, ctimes = (generator.integers(-(1 << 63), 1 << 63, NUM_FILES) for _ in range(3))
    return sizes, mtimes, ctimes, generator.integers(0, 1 << 64, NUM_FILES, np.uint64)


@pytest.fixture
def info(tmp_path, columns):
    write_source_states(tmp_path / FILENAME, columns, DIGEST)
    return types.SimpleNamespace(data_dir=tmp_path, manifest_sha256=DIGEST, verdicts={"ok": NUM_FILES})


def test_the_states_are_read_as_they_were_written(info, columns):
    check_source_states(info)
    expected = [FileState(*map(int, row)) for row in zip(*columns, strict=True)]
    assert list(read_source_states(info)) == expected
    metadata = pq.read_metadata(info.data_dir / FILENAME)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [65_536, 4_464]


def rewrite(path, *, names=FileState._fields, kinds=(INT64, INT64, INT64, UINT64), rows=NUM_FILES, **options):
    """Writes another table of zeros with the right digest."""
    table = pa.table(
        [pa.array(np.zeros(rows), kind) for kind in kinds],
        pa.schema(list(zip(names, kinds, strict=True)), {b"manifest_sha256": DIGEST.encode()}),
    )
    pq.write_table(table, path, **options)


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def replace(path, make):
    path.unlink()
    make(path)


def make_sparse(path):
    with path.open("wb") as file:
        file.truncate(10 << 30)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "cannot be read: "),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read: "),
        (lambda path: flip(path, path.stat().st_size // 2), "cannot be read: "),
        (make_sparse, "cannot be read: "),
        (lambda path: replace(path, os.mkfifo), "not a regular file"),
        (lambda path: replace(path, os.mkdir), "not a regular file"),
        (lambda path: replace(path, lambda path: path.symlink_to("/etc/passwd")), "not a regular file"),
        (lambda path: replace(path, lambda path: path.symlink_to("/dev/zero")), "not a regular file"),
        (lambda path: rewrite(path, rows=NUM_FILES - 1), "69,999 rows, the manifest has another number"),
        (lambda path: rewrite(path, rows=NUM_FILES + 1), "70,001 rows, the manifest has another number"),
        (
            lambda path: rewrite(path, names=("size_bytes", "mtime_ns", "ctime_ns", "device")),
            "has no column 'inode'",
        ),
        (
            lambda path: rewrite(path, kinds=(INT64, INT64, INT64, INT64)),
            "column 'inode' is int64, expected uint64",
        ),
        (
            lambda path: rewrite(
                path, names=(*FileState._fields, "inode"), kinds=(INT64, INT64, INT64, UINT64, UINT64)
            ),
            "",
        ),
        (
            lambda path: rewrite(path, rows=(1 << 20) + 1, row_group_size=1 << 21),
            "row group 0 has 1,048,577 rows",
        ),
    ],
)
def test_what_is_not_such_a_file_is_said_in_one_sentence(info, harm, sentence):
    path = info.data_dir / FILENAME
    harm(path)
    with pytest.raises(DatasetError) as raised:
        check_source_states(info)
    expected = re.escape(f"{path}: {sentence}")
    assert re.fullmatch(f"{expected}.*; every file is read again", str(raised.value))


def test_the_states_of_another_manifest_are_not_used(info):
    info.manifest_sha256 = "cd" * 32
    with pytest.raises(DatasetError, match="parquet: of another manifest; every file is read again"):
        check_source_states(info)


def test_a_file_that_kills_its_reader_does_not_kill_the_command(info, monkeypatch):
    monkeypatch.setattr(source_state, "_num_rows", die)
    with pytest.raises(DatasetError, match="reading it kills its process; every file is read again"):
        check_source_states(info)


def die(_):
    os.abort()
