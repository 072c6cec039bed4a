"""The limit of the machine: all cores process the images and do nothing else; their start is not timed."""

import hashlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import pictures
from way import arguments, list_photos, measure, opencv_wheel


def copy(path: str) -> None:
    """Reads a photo, and writes it with its SHA-256 and its CRC-32C: the minimum work of a copy with checksums."""
    content = Path(path).read_bytes()
    out.write(hashlib.sha256(content).digest())
    out.write(google_crc32c.value(content).to_bytes(4, "little"))
    out.write(content)


def decode(path: str) -> None:
    """Reads and decodes a photo."""
    pictures.decode(path)


def decode_resize_encode(path: str) -> None:
    """Reads, decodes, resizes and encodes a photo."""
    pictures.decode_resize_encode(path)


WORK: dict[str, Callable[[str], None]] = {
    "copy": copy,
    "decode": decode,
    "decode-resize-encode": decode_resize_encode,
}
out: BinaryIO


def start_worker(folder: Path, all_started: Barrier) -> None:
    """Opens the file of this worker and waits for the others, so that none starts during the measurement."""
    global out  # noqa: PLW0603 - A worker has no other place to keep it.
    out = (folder / f"{os.getpid()}").open("wb")
    all_started.wait()


def main() -> None:
    """Runs the program."""
    parser = arguments("Reads photos on all cores and does one thing to them.")
    parser.add_argument("--work", choices=WORK, required=True)
    options = parser.parse_args()
    paths = [path for path, _ in list_photos(options.photos)]
    work = WORK[options.work]
    options.out.mkdir()
    context = multiprocessing.get_context("spawn")
    start = (options.out, context.Barrier(options.workers))
    with ProcessPoolExecutor(options.workers, context, start_worker, start) as executor:
        list(executor.map(work, paths[: options.workers]))  # Starts them all.
        measure(lambda: list(executor.map(work, paths, chunksize=16)), "simplejpeg", opencv_wheel(), "numpy")


if __name__ == "__main__":
    main()
