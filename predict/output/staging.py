"""A report is written beside its place, and takes it file by file when all of it is there."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PREFIX = ".incomplete-"


@contextlib.contextmanager
def staging_in(out: Path) -> Iterator[Path]:
    """Gives a folder inside `out` to write into, which is removed at the end.

    Inside, so that renaming out of it is one step on the same file system and nothing else is touched.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f"{_PREFIX}*"):
        # What a killed run left; a younger one may be a run that is still at work.
        if time.time() - left_over.stat().st_mtime > 24 * 3600:
            shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX) as staging:
        yield Path(staging)


def publish(staging: Path, out: Path, names: Sequence[str]) -> None:
    """Moves the files called `names` to where they belong, in this order; other files there stay."""
    for name in names:
        (staging / name).replace(out / name)
