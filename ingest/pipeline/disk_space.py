"""Checks before a long job whether the disk has enough space."""

import math
import shutil
from pathlib import Path

from shardstream.ingest.common.byte_size import format_size
from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.images.settings import ImageSettings

# Lower bound: a JPEG of a uniform surface.
_MIN_BYTES_PER_PIXEL = 0.02
_MIN_RECORD_BYTES = 700


def check_free_space(num_files: int, image: ImageSettings, folders: list[Path]) -> None:
    """Raises MachineError if a disk has less space than the smallest possible records of the files take.

    Args:
        num_files: The number of files to process.
        image: How the images are stored.
        folders: The folders that records are written to, without repetition.
    """
    needed = num_files * _min_record_bytes(image)
    by_disk: dict[int, list[Path]] = {}
    for folder in folders:
        by_disk.setdefault(folder.stat().st_dev, []).append(folder)
    for disk in by_disk.values():
        free = _free_bytes(disk[0])
        missing = sum(max(0, needed - _num_bytes(folder)) for folder in disk)
        if free < missing:
            raise MachineError(
                f"{disk[0]}: {num_files:,} files take at least {format_size(missing)} more here, "
                f"{format_size(free)} are free; make room, or put the map step's work on another disk with --work-dir"
            )


def check_room_for_shards(num_bytes: int, folder: Path) -> None:
    """Raises MachineError if the disk of `folder` has less space than shards of `num_bytes` take."""
    free = _free_bytes(folder)
    if free < num_bytes:
        raise MachineError(
            f"{folder}: the new dataset takes {format_size(num_bytes)} here, {format_size(free)} are free; make room "
            "and run the same command again: finished work is kept"
        )


def has_room(num_bytes: int, folder: Path) -> bool:
    """Whether the disk of `folder` has space for `num_bytes`."""
    return num_bytes <= _free_bytes(folder)


def _free_bytes(folder: Path) -> float:
    """Returns the free bytes on the disk of `folder`; infinity if it is a service that does not report them."""
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total else math.inf


def _num_bytes(folder: Path) -> int:
    """Returns the bytes that an interrupted job has already written to `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _min_record_bytes(image: ImageSettings) -> float:
    if image.size is None:
        return _MIN_RECORD_BYTES
    pixels = image.size**2
    return _MIN_RECORD_BYTES + (3 * pixels if image.encoding == "raw" else _MIN_BYTES_PER_PIXEL * pixels)
