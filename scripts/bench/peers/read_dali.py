"""NVIDIA DALI on the CPU: its file reader and decoder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from epochs import BATCH, arguments, list_files, measure_epochs
from nvidia.dali import fn, pipeline_def  # pyright: ignore[reportMissingImports]


@pipeline_def
def photos(root: str) -> tuple:
    """Reads, decodes and shuffles the photos."""
    encoded, labels = fn.readers.file(file_root=root, random_shuffle=True, initial_fill=1024, name="reader")
    return fn.decoders.image(encoded, device="cpu"), labels


def main() -> None:
    """Runs the program."""
    options = arguments(str(__doc__)).parse_args()
    folder = options.inputs / "files"
    count = len(list_files(folder))
    make_pipeline: Any = photos  # The decorator adds arguments.
    pipeline = make_pipeline(
        str(folder), batch_size=BATCH, num_threads=options.workers, device_id=None, prefetch_queue_depth=3
    )
    pipeline.build()

    def epoch(_: int) -> Iterator[tuple]:
        for _ in range(count // BATCH):
            images, labels = pipeline.run()
            # A view of the batch, not a copy.
            yield np.asarray(images.as_tensor()), labels

    measure_epochs(epoch, options.epochs, "nvidia-dali-cuda120")


if __name__ == "__main__":
    main()
