"""The limits of the machine: libjpeg-turbo in a bare loop on all cores, and copying complete batches on one core."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import simplejpeg
from epochs import BATCH, SIZE, arguments, list_files, measure_epochs

contents: list[bytes]


def start_worker(paths: list[Path], all_started: Barrier) -> None:
    """Reads all files and waits for the others, so that decoding alone is timed."""
    global contents  # noqa: PLW0603 - A worker has no other place to keep it.
    contents = [path.read_bytes() for path in paths]
    all_started.wait()


def decode(rows: range) -> int:
    """Decodes these files one after the other into the same memory."""
    target = np.empty((SIZE, SIZE, 3), np.uint8)
    for row in rows:
        simplejpeg.decode_jpeg(contents[row], "RGB", buffer=target)
    return len(rows)


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--work", choices=("decode", "copy"), required=True)
    options = parser.parse_args()
    files = [path for path, _ in list_files(options.inputs / "files")]
    if options.work == "copy":
        measure_epochs(copied_batches(len(files)), options.epochs, "numpy")
        return
    context = multiprocessing.get_context("spawn")
    start = (files, context.Barrier(options.workers))
    with ProcessPoolExecutor(options.workers, context, start_worker, start) as executor:
        list(executor.map(pause, range(options.workers)))  # Starts them all.
        parts = [range(first, len(files), 8 * options.workers) for first in range(8 * options.workers)]
        measure_epochs(
            # Only the number of images: the decoded pixels stay in the worker.
            lambda _: ((np.empty(size, np.uint8),) for size in executor.map(decode, parts)),
            options.epochs,
            "simplejpeg",
        )


def pause(_: int) -> None:
    """Blocks a worker until all have started."""
    time.sleep(0.1)


def copied_batches(count: int):
    """Returns a function that copies `count` images, batch by batch, to one place."""
    pictures = np.random.default_rng(0).integers(0, 255, (count, SIZE, SIZE, 3), np.uint8)
    batch = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)

    def epoch(_: int):
        for start in range(0, count - BATCH + 1, BATCH):
            np.copyto(batch, pictures[start : start + BATCH])
            yield (batch,)

    return epoch


if __name__ == "__main__":
    main()
