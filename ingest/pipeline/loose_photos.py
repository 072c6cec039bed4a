"""Finds and processes images in folders without classes, in the same way as a build."""

import hashlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.retries import retry_transient
from shardstream.ingest.common.safe_files import read_regular
from shardstream.ingest.execution.crashes import MAX_SECS_PER_ITEM, REASON, AttemptLog, run_isolated
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.images.process import ProcessedImage, process_image
from shardstream.ingest.images.settings import ImageSettings
from shardstream.ingest.pipeline.clutter import is_clutter
from shardstream.ingest.pipeline.listing import shown

# A worker returns some megabytes at once.
_CHUNK = 32
_MAX_PIXELS = 130_000_000
# Same limit as in a build: a file named like an image may be anything.
_MAX_FILE_BYTES = 400_000_000


class JudgedPhoto(NamedTuple):
    """One file with its verdict.

    Attributes:
        path: Path as given, or below the given folder.
        sha256: SHA-256 of its content in hexadecimal; empty if it could not be read.
        judged: The verdict, and the image as a build would store it.
    """

    path: str
    sha256: str
    judged: ProcessedImage


class Chunk(NamedTuple):
    """Some files, how to store the images, and the path where the worker logs its current file."""

    number: int
    paths: Sequence[str]
    image: ImageSettings
    log: Path
    crashing: frozenset[int] = frozenset()


class JudgedChunk(NamedTuple):
    """The results of a chunk."""

    number: int
    photos: Sequence[JudgedPhoto]


def find_photos(paths: Sequence[Path]) -> list[str]:
    """Returns all files of `paths`, which are files and folders; folders in the order of their names, all levels.

    Hidden files and files that file managers create are skipped in folders.

    Raises:
        DatasetError: A path does not exist.
    """
    found: list[str] = []
    for path in paths:
        if path.is_dir():
            found += _files_below(path)
        elif path.exists():
            found.append(str(path))
        else:
            raise DatasetError(f"{path}: no such file or folder")
    return found


def process_photos(paths: Sequence[str], image: ImageSettings) -> Iterator[JudgedPhoto]:
    """Yields each file with its verdict, in order. Worker processes read each file once."""
    with tempfile.TemporaryDirectory(prefix="shardstream-") as logs:
        chunks = [
            Chunk(number, paths[start : start + _CHUNK], image, Path(logs) / str(number))
            for number, start in enumerate(range(0, len(paths), _CHUNK))
        ]
        waiting: dict[int, Sequence[JudgedPhoto]] = {}
        following = 0
        with open_engine("local", workers=min(usable_cores(), len(chunks))) as engine:
            for done in engine.run_all(_judge_chunk, chunks, alone=_judge_alone):
                waiting[done.number] = done.photos
                while following in waiting:
                    yield from waiting.pop(following)
                    following += 1


def _files_below(folder: Path) -> Iterator[str]:
    # Links to folders are not followed: they may lead back. Not os.walk, which recurses in Python 3.11.
    todo = [str(folder)]
    while todo:
        root = todo.pop()
        try:
            with os.scandir(root) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            raise DatasetError(
                f"{shown(root[:200])}: cannot be listed: {error.strerror}; take it out of the photos"
            ) from None
        found = [(os.path.join(root, name), is_folder) for name, is_folder in found if not is_clutter(name)]  # noqa: PTH118
        yield from (path for path, is_folder in found if not is_folder)
        todo += [path for path, is_folder in reversed(found) if is_folder]


def _judge_chunk(chunk: Chunk) -> JudgedChunk:
    photos: list[JudgedPhoto] = []
    with AttemptLog(chunk.log) as attempts:
        for number, path in enumerate(chunk.paths):
            if number in chunk.crashing:
                photos.append(JudgedPhoto(path, "", ProcessedImage("rejected", REASON)))
                continue
            attempts.note(number)
            # A hung decoder runs no Python handlers: the alarm kills the process, and the log names the file.
            signal.alarm(MAX_SECS_PER_ITEM)
            photos.append(_judge(path, chunk.image))
            signal.alarm(0)
    return JudgedChunk(chunk.number, photos)


def _judge_alone(chunk: Chunk) -> JudgedChunk:
    """Processes a chunk whose worker died: files that crash the decoder are rejected, the others are kept."""
    return run_isolated(
        _judge_chunk, chunk, log=chunk.log, without=lambda chunk, items: chunk._replace(crashing=items)
    )


def _judge(path: str, image: ImageSettings) -> JudgedPhoto:
    file = Path(path)
    try:
        data = retry_transient(lambda: read_regular(file, max_bytes=_MAX_FILE_BYTES))
    except OSError as error:
        if is_machine_error(error):
            raise
        return JudgedPhoto(path, "", ProcessedImage("rejected", f"cannot be read: {error.strerror}"))
    judged = process_image(data, file.suffix, image=image, max_pixels=_MAX_PIXELS)
    return JudgedPhoto(path, hashlib.sha256(data).hexdigest(), judged)
