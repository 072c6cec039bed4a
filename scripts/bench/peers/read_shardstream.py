"""shardstream: the training batches, with each cache tier; images are decoded in the first epoch."""

import functools
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

    # Next to the inputs, as the system's temporary folder may be in memory.
    with tempfile.TemporaryDirectory(dir=options.inputs) as temporary:

        @functools.cache
        def opened() -> tuple[Iterator[Any], int]:
            data = load_dataset(options.inputs / options.data)
            folder = Path(temporary)
            batches = data.train_batches(
                BATCH, seed=1, image_size=SIZE, cache=options.cache, cache_dir=folder
            )
            return iter(batches), data.steps_per_epoch(BATCH)

        if options.cache == "none":  # Built in advance, as for the other libraries; filling a cache is timed.
            opened()

        def epoch(_: int) -> Iterator[Any]:
            # One iterator for all epochs, as in training.
            batches, steps = opened()
            yield from itertools.islice(batches, steps)

        measure_epochs(epoch, options.epochs, "shardstream", "tensorflow")


if __name__ == "__main__":
    main()
