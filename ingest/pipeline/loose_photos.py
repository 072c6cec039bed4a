"""Photos as they lie in folders, without categories: found, read once and judged as a build judges them."""

import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NamedTuple

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.execution.processes import run_alone
from shardstream.ingest.images.process import ProcessedImage, process_image
from shardstream.ingest.images.settings import ImageSettings
from shardstream.ingest.pipeline.scan import is_clutter

# What a worker gives back at once: some megabytes.
_CHUNK = 32
_MAX_PIXELS = 100_000_000
# A file that is named like a photo may be anything; a build reads no larger one either.
_MAX_FILE_BYTES = 400_000_000
_MAX_SECS_PER_FILE = 60


class JudgedPhoto(NamedTuple):
    """One file with its verdict.

    Attributes:
        path: As it was given, or below the folder that was given.
        sha256: Of its content, in hexadecimal; empty where it could not be read.
        judged: The verdict, and the picture as a build would store it.
    """

    path: str
    sha256: str
    judged: ProcessedImage


class Chunk(NamedTuple):
    """Some files, and how the pictures are to be stored."""

    number: int
    paths: Sequence[str]
    image: ImageSettings


class JudgedChunk(NamedTuple):
    """What became of a chunk."""

    number: int
    photos: Sequence[JudgedPhoto]


def find_photos(paths: Sequence[Path]) -> list[str]:
    """Returns all files of `paths`, which are files and folders; folders in the order of their names, all levels.

    Hidden files and what file managers leave behind are passed over in folders.

    Raises:
        DatasetError: A path is not there.
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
    """Yields each file with its verdict, in order, each read once; processes do the work."""
    chunks = [
        Chunk(number, paths[start : start + _CHUNK], image)
        for number, start in enumerate(range(0, len(paths), _CHUNK))
    ]
    waiting: dict[int, Sequence[JudgedPhoto]] = {}
    following = 0
    with open_engine("local", workers=min(usable_cores(), len(chunks))) as engine:
        for done in engine.run_all(_judge_chunk, chunks, alone=_judge_one_by_one):
            waiting[done.number] = done.photos
            while following in waiting:
                yield from waiting.pop(following)
                following += 1


def _files_below(folder: Path) -> Iterator[str]:
    # Links to folders are not followed: they may lead back.
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        yield from (os.path.join(root, name) for name in sorted(files) if not is_clutter(name))  # noqa: PTH118


def _judge_chunk(chunk: Chunk) -> JudgedChunk:
    return JudgedChunk(chunk.number, [_judge(path, chunk.image) for path in chunk.paths])


def _judge_one_by_one(chunk: Chunk) -> JudgedChunk:
    """Judges a chunk whose worker died: the file that kills its decoder is rejected, the others are kept."""
    photos: list[JudgedPhoto] = []
    for path in chunk.paths:
        try:
            photos += run_alone(_judge_chunk, Chunk(chunk.number, [path], chunk.image)).photos
        except BrokenExecutor:
            photos.append(JudgedPhoto(path, "", ProcessedImage("rejected", "kills or hangs its decoder")))
    return JudgedChunk(chunk.number, photos)


def _judge(path: str, image: ImageSettings) -> JudgedPhoto:
    file = Path(path)
    try:
        if not file.is_file():  # Reading a pipe would wait for ever.
            return JudgedPhoto(path, "", ProcessedImage("rejected", "not a file"))
        if file.stat().st_size > _MAX_FILE_BYTES:
            return JudgedPhoto(path, "", ProcessedImage("rejected", "larger than a photo is"))
        data = file.read_bytes()
    except OSError as error:
        return JudgedPhoto(path, "", ProcessedImage("rejected", f"cannot be read: {error.strerror}"))
    # A decoder that hangs hears no Python: the alarm ends its process, which is then found to have died.
    signal.alarm(_MAX_SECS_PER_FILE)
    judged = process_image(data, file.suffix, image=image, max_pixels=_MAX_PIXELS)
    signal.alarm(0)
    return JudgedPhoto(path, hashlib.sha256(data).hexdigest(), judged)
