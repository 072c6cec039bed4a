"""Error messages for a path that is not a dataset or a run: guesses what it is and says what to do."""

import difflib
import itertools
import os
from pathlib import Path

from shardstream.ingest.images.file_marks import SUFFIXES

_IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# Enough to recognize a folder of images; listing all files of a network mount may take minutes.
_MAX_ENTRIES = 200
_MAX_SIBLINGS = 1000


def explain_missing_metadata(data_dir: Path, filename: str, hint: str) -> str:
    """Returns an explanation for `data_dir`, which has no metadata.

    Args:
        data_dir: The path that was given as a dataset.
        filename: The name of the missing file.
        hint: What to do if it looks like an incomplete dataset.
    """
    if not data_dir.exists() and data_dir.suffix.lower() in _IMAGE_SUFFIXES:
        return f"{data_dir}: no such file"
    if not data_dir.exists():
        hint = f"make it with `shardstream-ingest build IMAGES {data_dir}`"
        return f"{data_dir}: no such folder; {near_folder(data_dir) or hint}"
    if not data_dir.is_dir():
        return f"{data_dir}: a file, expected a dataset folder made by `shardstream-ingest build`"
    if (data_dir / "model.json").is_file() or (data_dir / "history.csv").is_file():
        return f"{data_dir}: a run folder, expected a dataset folder made by `shardstream-ingest build`"
    if _has_images(data_dir):
        return (
            f"{data_dir}: holds images, expected a dataset folder; make one with "
            f"`shardstream-ingest build {data_dir} DATA` and give DATA"
        )
    return f"{data_dir}: no {filename} in it, so it is not a complete dataset; {hint}"


def explain_missing_run(run: Path) -> str:
    """Returns an explanation for `run`, which was given as a run folder but is not one."""
    expected = "expected a run folder made by `shardstream-train`"
    if not run.exists():
        hint = f"make one with `shardstream-train DATA --run {run}`"
        return f"{run}: no such run folder; {near_folder(run) or hint}"
    if is_dataset(run):
        return f"{run}: a dataset folder, {expected}; train with `shardstream-train {run} --run RUN` and give RUN"
    if not (run / "config.json").is_file() and _has_images(run):
        return f"{run}: holds images, {expected}"
    return f"{run}: no config.json and no model.json in it, so it is not a run folder made by `shardstream-train`"


def is_dataset(folder: Path) -> bool:
    """Returns whether `folder` is a shardstream dataset, complete or not, and not another use of metadata.json."""
    return (folder / "metadata.json").is_file() and any(folder.glob("*.tfrecord-*"))


def near_folder(missing: Path) -> str:
    """Returns a question for the folder beside `missing` with the nearest name; empty if there is none."""
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, _MAX_SIBLINGS) if entry.is_dir()]
    except OSError:
        return ""
    # The work of a build that was stopped is no dataset.
    names = [name for name in names if not name.endswith(".incomplete")]
    close = difflib.get_close_matches(missing.name, names, n=1)
    return f"did you mean {missing.with_name(close[0])}?" if close else ""


def _has_images(folder: Path) -> bool:
    """Returns whether there are images in `folder`, or up to two levels below."""
    folders = [folder]
    for _ in range(3):
        below: list[Path] = []
        for parent in folders[:_MAX_ENTRIES]:
            try:
                with os.scandir(parent) as entries:
                    for entry in itertools.islice(entries, _MAX_ENTRIES):
                        if os.path.splitext(entry.name)[1].lower() in _IMAGE_SUFFIXES:  # noqa: PTH122
                            return True
                        if entry.is_dir(follow_symlinks=False):
                            below.append(Path(entry.path))
            except OSError:
                continue
        folders = below
    return False
