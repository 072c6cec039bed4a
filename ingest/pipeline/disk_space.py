"""Whether the disk has room for a job, asked before hours of work."""

import shutil
from pathlib import Path

from shardstream.ingest.common.byte_size import format_size
from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.images.settings import ImageSettings
from shardstream.ingest.pipeline.listing import Listing

# Of what is certain: an even surface as JPEG has so many bytes a pixel.
_MIN_BYTES_PER_PIXEL = 0.02
_MIN_RECORD_BYTES = 700


def check_free_space(listing: Listing, image: ImageSettings, folders: list[Path]) -> None:
    """Raises MachineError where a disk has less room than the smallest dataset of these files takes.

    Args:
        listing: All files.
        image: How they are stored.
        folders: Where records are written to, each of them once.
    """
    needed = len(listing) * _min_record_bytes(image)
    by_disk: dict[int, list[Path]] = {}
    for folder in folders:
        by_disk.setdefault(folder.stat().st_dev, []).append(folder)
    for disk in by_disk.values():
        free = shutil.disk_usage(disk[0]).free
        missing = sum(max(0, needed - _num_bytes(folder)) for folder in disk)
        if free < missing:
            raise MachineError(
                f"{disk[0]}: {len(listing):,} files take at least {format_size(missing)} more here, "
                f"{format_size(free)} are free; make room, or put the map step's work on another disk with --work-dir"
            )


def _num_bytes(folder: Path) -> int:
    """Returns what a job that was stopped has there already."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _min_record_bytes(image: ImageSettings) -> float:
    if image.size is None:
        return _MIN_RECORD_BYTES
    pixels = image.size**2
    return _MIN_RECORD_BYTES + (3 * pixels if image.encoding == "raw" else _MIN_BYTES_PER_PIXEL * pixels)
