"""Whether the disk has room for a job, asked before hours of work."""

import math
import shutil
from pathlib import Path

from shardstream.ingest.common.byte_size import format_size
from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.images.settings import ImageSettings

# Of what is certain: an even surface as JPEG has so many bytes a pixel.
_MIN_BYTES_PER_PIXEL = 0.02
_MIN_RECORD_BYTES = 700


def check_free_space(num_files: int, image: ImageSettings, folders: list[Path]) -> None:
    """Raises MachineError where a disk has less room than the smallest records of so many files take.

    Args:
        num_files: The number of files to process.
        image: How they are stored.
        folders: Where records are written to, each of them once.
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
    """Raises MachineError where the disk of `folder` has less room than shards of `num_bytes` take."""
    free = _free_bytes(folder)
    if free < num_bytes:
        raise MachineError(
            f"{folder}: the new dataset takes {format_size(num_bytes)} here, {format_size(free)} are free; make room "
            "and run the same command again: finished work is kept"
        )


def has_room(num_bytes: int, folder: Path) -> bool:
    """Whether the disk of `folder` has room for so many bytes."""
    return num_bytes <= _free_bytes(folder)


def _free_bytes(folder: Path) -> float:
    """Returns the room on the disk of `folder`; infinity where it is a service that does not say."""
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total else math.inf


def _num_bytes(folder: Path) -> int:
    """Returns what a job that was stopped has there already."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _min_record_bytes(image: ImageSettings) -> float:
    if image.size is None:
        return _MIN_RECORD_BYTES
    pixels = image.size**2
    return _MIN_RECORD_BYTES + (3 * pixels if image.encoding == "raw" else _MIN_BYTES_PER_PIXEL * pixels)
