"""A report is written beside its place, and takes it when all of it is there."""

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

# Everything that a report of any kind may hold. Nothing else in its folder is ever touched.
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
    """Refuses to write over files that are no report's.

    Raises:
        ConfigError: The folder has a file with the name of one of ours, and no report of ours.
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
    """Gives a folder inside `out` to write into, which is removed at the end.

    Inside, so that renaming out of it is one step on the same file system and nothing else is touched.

    Raises:
        ConfigError: The folder has files of others by the names of a report.
        OSError: What the system says, of this folder where it names no file: a full disk.
    """
    check_report_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f"{_PREFIX}*"):
        # What a killed run left; a younger one may be a run that is still at work.
        if time.time() - left_over.stat().st_mtime > 24 * 3600:
            shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX) as staging:
        try:
            yield Path(staging)
        except OSError as error:
            if error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(out)) from error
            raise


def publish(staging: Path, out: Path, names: Sequence[str]) -> None:
    """Replaces the report in `out` by the files called `names`; what an earlier report had besides is removed.

    The page goes first and comes last: a process that is killed amid the renames leaves a folder without a page, never
    a page beside the files of another report. So do two that end at once: one waits for the other. Files of others in
    the folder stay.
    """
    with _one_at_a_time(out):
        _replace(staging, out, names)


def _replace(staging: Path, out: Path, names: Sequence[str]) -> None:
    (out / PAGE).unlink(missing_ok=True)
    # metrics.json first of all: it says that the other files are a report's.
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
