"""shardstream: the batches of training, with each cache tier; the first epoch is the one that decodes."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epochs import BATCH, SIZE, arguments, measure_epochs

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--cache", required=True)
    parser.add_argument("--data", default="data", help="the dataset in the folder of the inputs")
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    from shardstream.train.data.dataset import load_dataset

    tf.zeros(1)
    batches: Iterator[Any] | None = None
    steps = 0

    def epoch(_: int) -> Iterator[Any]:
        nonlocal batches, steps
        if batches is None:  # Opening it, and filling the cache, is of the first epoch.
            data = load_dataset(options.inputs / options.data)
            steps = data.steps_per_epoch(BATCH)
            folder = Path(temporary)
            batches = iter(
                data.train_batches(BATCH, seed=1, image_size=SIZE, cache=options.cache, cache_dir=folder)
            )
        # One iterator for all epochs, as training has it.
        yield from itertools.islice(batches, steps)

    # Beside the inputs, as the system's temporary folder may be in memory.
    with tempfile.TemporaryDirectory(dir=options.inputs) as temporary:
        measure_epochs(epoch, options.epochs, "shardstream", "tensorflow")


if __name__ == "__main__":
    main()
