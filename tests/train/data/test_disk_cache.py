import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shardstream.train.data.disk_cache import open_or_fill

IDENTITY = {"fingerprint": "abc", "image_size": 8}
NUM_IMAGES = 50
IMAGES = np.random.default_rng(0).integers(0, 255, (NUM_IMAGES, 8, 8, 3), np.uint8)
LABELS = np.arange(NUM_IMAGES, dtype=np.int32)


def fill(write):
    for start in range(0, NUM_IMAGES, 16):
        write(start, IMAGES[start : start + 16], LABELS[start : start + 16])


def refuse(write):
    raise AssertionError("it was filled again")


def expect_complete(arrays):
    images, labels = arrays
    assert (images == IMAGES).all()
    assert (labels == LABELS).all()
    assert images.ctypes.data % 64 == labels.ctypes.data % 64 == 0


def test_a_later_run_reads_what_was_filled(tmp_path):
    expect_complete(open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill))
    expect_complete(open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, refuse))
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".images"


def test_another_content_is_another_file(tmp_path):
    open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill)
    with pytest.raises(AssertionError):
        open_or_fill(tmp_path, IDENTITY | {"fingerprint": "abd"}, NUM_IMAGES, 8, refuse)
    assert [file.suffix for file in tmp_path.iterdir()] == [".images"]


def test_what_is_written_to_the_arrays_stays_in_this_process(tmp_path):
    images, _ = open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill)
    images[:] = 0
    expect_complete(open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, refuse))


@pytest.mark.parametrize("size", [0, 100, 4096, 9000, 10**6])
def test_a_file_of_another_size_is_made_again(tmp_path, size):
    open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill)
    (file,) = tmp_path.iterdir()
    os.truncate(file, size)
    expect_complete(open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill))


def test_a_file_with_another_header_is_made_again(tmp_path):
    open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(b"\0" * 4096 + content[4096:])
    expect_complete(open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill))


@pytest.mark.parametrize("fails", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_leaves_nothing_and_is_said(tmp_path, monkeypatch, caplog, fails):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    assert open_or_fill(tmp_path, IDENTITY, NUM_IMAGES, 8, fill) is None
    assert list(tmp_path.iterdir()) == []
    assert (
        "images cannot be cached there (No space left on device); they are decoded in every epoch"
        in caplog.text
    )


def test_a_planted_link_is_not_followed(tmp_path):
    open_or_fill(tmp_path / "a", IDENTITY, NUM_IMAGES, 8, fill)
    (file,) = (tmp_path / "a").iterdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f"{file.name}.part").symlink_to(victim)
    assert open_or_fill(tmp_path / "b", IDENTITY, NUM_IMAGES, 8, fill) is None
    assert victim.read_bytes() == b"precious"


# Fills a file after a second, or never.
PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from shardstream.train.data.disk_cache import open_or_fill
def fill(write):
    print("started", flush=True)
    time.sleep(float(sys.argv[2]))
    write(0, np.load(sys.argv[3]), np.arange(50, dtype=np.int32))
open_or_fill(Path(sys.argv[1]), {"fingerprint": "abc", "image_size": 8}, 50, 8, fill)
"""


def start_process(folder: Path, secs: float) -> subprocess.Popen[str]:
    """Returns a process that has begun to fill a file."""
    np.save(folder / "images.npy", IMAGES)
    command = [sys.executable, "-c", PROGRAM, str(folder / "cache"), str(secs), str(folder / "images.npy")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def test_two_processes_fill_one_file(tmp_path):
    with start_process(tmp_path, 1.0) as process:
        expect_complete(open_or_fill(tmp_path / "cache", IDENTITY, NUM_IMAGES, 8, refuse))
    assert process.returncode == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_a_killed_process_leaves_is_filled_anew(tmp_path):
    with start_process(tmp_path, 600.0) as process:
        assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".part"]
        process.kill()
    expect_complete(open_or_fill(tmp_path / "cache", IDENTITY, NUM_IMAGES, 8, fill))
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".images"]
