import errno
import hashlib
import json
import math
import os
import re
import resource

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine.progress import Progress
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.uint32, np.uint8, np.bool_]


def make(epoch=1, step=2, **variables) -> Checkpoint:
    return Checkpoint(
        position=Progress(epoch, step, 0.5),
        secs=3.25,
        history=[{"epoch": 1, "val_loss": 0.1 + 0.2}],
        variables=variables or {"0 kernel": np.arange(6, dtype=np.float32)},
        best_weights={"0": np.ones([2, 2], np.float32)},
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)),
        max_size=4,
    )
)
def test_what_is_written_is_what_is_read(tmp_path_factory, described):
    path = tmp_path_factory.mktemp("c") / "x"
    generator = np.random.default_rng(0)
    # Transposed, so that not all lie in memory as they are written.
    written = {
        f"{i} 가/b": (100 * generator.normal(size=shape)).astype(dtype).T
        for i, (dtype, shape) in enumerate(described)
    }
    checkpoint = Checkpoint(
        position=Progress(7, 3, 1.5, 0.25),
        secs=0.1,
        history=[{"a": 1 / 3}],
        variables=written,
        best_weights=written,
    )
    checkpoint.write(path)
    read = Checkpoint.read(path)
    assert (read.position, read.secs, read.history) == (Progress(7, 3, 1.5, 0.25), 0.1, [{"a": 1 / 3}])
    for group in (read.variables, read.best_weights):
        assert list(group) == list(written)
        for name, array in written.items():
            assert (group[name].dtype, group[name].shape) == (array.dtype, array.shape)
            assert group[name].tobytes() == array.tobytes()


def test_every_cut_and_every_flipped_bit_is_noticed(folder):
    path = folder / "x"
    make().write(path)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for content in [*damaged, whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=f"^{re.escape(str(path))}: not as it was written$"):
            Checkpoint.read(path)


def test_the_last_two_are_kept(folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() is None
    for epoch, step in [(0, 999), (0, 1000), (1, 0), (1, 5)]:
        checkpoints.save(make(epoch, step))
    assert [path.name for path in checkpoints.paths()] == [
        "000001-000000005.checkpoint",
        "000001-000000000.checkpoint",
    ]
    latest = Checkpoints(folder).latest()
    assert latest is not None and latest.position == Progress(1, 5, 0.5)


def test_the_one_before_a_damaged_one_is_used_and_the_damaged_one_is_not_kept(folder, caplog):
    checkpoints = Checkpoints(folder)
    for epoch in (3, 4):
        checkpoints.save(make(epoch, 0))
    newest, before = checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:-1])
    checkpoints = Checkpoints(folder)
    latest = checkpoints.latest()
    assert latest is not None and latest.position.epoch == 3
    assert caplog.messages == [f"{newest}: not as it was written; the one before, {before.name}, is used"]
    checkpoints.save(make(3, 10))  # Not as far as the damaged one.
    assert [path.name for path in checkpoints.paths()] == ["000003-000000010.checkpoint", before.name]


def test_damage_everywhere_is_an_error(folder, caplog):
    checkpoints = Checkpoints(folder)
    checkpoints.save(make())
    (path,) = checkpoints.paths()
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="no checkpoint there can be read; --no-resume starts over"):
        checkpoints.latest()
    assert caplog.messages == [f"{path}: not as it was written; there is none before"]


def test_a_full_disk_leaves_what_was_there(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(make(1, 0))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The largest size of a file stands in for the disk: writing past it fails in the same way.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as full:
            checkpoints.save(make(2, 0, big=np.zeros(10**6)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_process_left_is_swept(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(make())
    (folder / "000009-000000000.checkpoint.0123456789ab.part").touch()
    checkpoints.remove_incomplete()
    assert list(folder.iterdir()) == checkpoints.paths()


@pytest.mark.parametrize(
    ("position", "words"),
    [(Progress(2, 3), "step 3 of epoch 3"), (Progress(2), "the end of epoch 2")],
)
def test_positions_as_people_read_them(position, words):
    assert str(position) == words


def with_header(path, **changes):
    """Writes a checkpoint whose header says something else, and whose digest fits."""
    make().write(path)
    content = path.read_bytes()
    start = content.index(b"{")
    end = start + int.from_bytes(content[start - 8 : start], "little")
    header = json.dumps(json.loads(content[start:end]) | changes).encode()
    body = content[: start - 8] + len(header).to_bytes(8, "little") + header + content[end:-32]
    path.write_bytes(body + hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    "changes",
    [
        {"position": {"epoch": "x", "step": 1}},
        {"position": {"epoch": -1, "step": 1}},
        {"position": {"epoch": 1, "step": 1, "train_secs": math.nan}},
        {"position": 7},
        {"secs": "x"},
        {"secs": math.inf},
        {"history": [["epoch", 1]]},
        {"history": [{"epoch": None}]},
        {"arrays": {"variables": [["0 kernel", "object", [6]]], "best_weights": []}},
        {"arrays": {"variables": [["0 kernel", "float32", [-10]]], "best_weights": []}},
        {"arrays": {"variables": [["0 kernel", "float32", [10**12]]], "best_weights": []}},
    ],
)
def test_a_header_of_other_values_is_no_checkpoint(folder, changes):
    with_header(folder / "x", **changes)
    with pytest.raises(DatasetError, match=f"^{re.escape(str(folder / 'x'))}: [^\n]*$"):
        Checkpoint.read(folder / "x")


def test_a_file_of_another_size_than_its_header_says_is_not_read(folder):
    make().write(folder / "x")
    os.truncate(folder / "x", 1 << 42)
    with pytest.raises(DatasetError, match="not as it was written"):
        Checkpoint.read(folder / "x")


def test_a_checkpoint_that_its_run_removes_meanwhile_is_passed_over(folder, monkeypatch, caplog):
    """As `status` may meet it: a file is listed, and gone when it is read, or read, and gone when its age is asked."""
    checkpoints = Checkpoints(folder)
    checkpoints.save(make(1))
    gone = folder / "000009-000000000.checkpoint"
    monkeypatch.setattr(Checkpoints, "paths", lambda self: [gone, *sorted(folder.iterdir())])
    found = checkpoints.latest()
    assert found is not None and found.position.epoch == 1
    for path in folder.iterdir():
        path.unlink()
    assert checkpoints.age_secs(1e12) == 0.0
    assert checkpoints.latest() is None
    assert caplog.text == ""
