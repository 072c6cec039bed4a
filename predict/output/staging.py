"""Writes a report to a staging folder, and moves it to its place when complete."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from shardstream.ingest.common.errors import ConfigError

_PREFIX = ".incomplete-"

PAGE, METRICS = "index.html", "metrics.json"

# All files that any kind of report may have. Other files in its folder are never touched.
KNOWN_FILES = (
    METRICS,
    "predictions.parquet",
    "predictions.csv",
    "findings.csv",
    "grid.png",
    "confusion_matrix.png",
    "calibration.png",
    PAGE,
)


def check_report_folder(out: Path) -> None:
    """Refuses to overwrite files that do not belong to a report.

    Raises:
        ConfigError: The folder has a file with the name of one of ours, but no report of ours.
    """
    others = [name for name in KNOWN_FILES if (out / name).exists()]
    if others and not _is_report(out):
        raise ConfigError(
            f"--out {out}: has files that are no report ({', '.join(others)}), which would be overwritten; "
            "choose another folder"
        )


def _is_report(out: Path) -> bool:
    try:
        content = json.loads((out / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"command", "versions"} <= content.keys()


@contextlib.contextmanager
def staging_in(out: Path) -> Iterator[Path]:
    """Gives a staging folder inside `out`, which is removed at the end, as is a new `out` that stays empty.

    Inside, so that renaming is atomic on the same file system and nothing else is touched.

    Raises:
        ConfigError: The folder has foreign files with names of a report.
        OSError: A system error, with this folder if it names no file, such as a full disk.
    """
    check_report_folder(out)
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f"{_PREFIX}*"):
        # Left by a killed run; a younger one may belong to a run in progress, which may remove it now.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left_over.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left_over, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX) as staging:
            yield Path(staging)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(out)) from error
        raise
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # Not empty: the report is there.
                out.rmdir()


def publish(staging: Path, out: Path, names: Sequence[str]) -> bool:
    """Replaces the report in `out` by the files called `names`; other files of an earlier report are removed.

    Returns whether there was an earlier report.

    The page is removed first and added last: a process killed between renames leaves a folder without a page, never a
    page with the files of another report. The same holds for two that finish at once: one waits for the other. Foreign
    files in the folder stay.
    """
    with _one_at_a_time(out):
        is_replaced = _is_report(out)
        _replace(staging, out, names)
    return is_replaced


def _replace(staging: Path, out: Path, names: Sequence[str]) -> None:
    (out / PAGE).unlink(missing_ok=True)
    # metrics.json first of all: it marks the other files as those of a report.
    for name in sorted(names, key=KNOWN_FILES.index):
        if name != PAGE:
            (staging / name).replace(out / name)
    for name in KNOWN_FILES:
        if name not in names:
            (out / name).unlink(missing_ok=True)
    (staging / PAGE).replace(out / PAGE)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
