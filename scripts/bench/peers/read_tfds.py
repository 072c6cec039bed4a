"""TensorFlow Datasets: `as_dataset` on our own shards, shuffled and batched as in its guide.

By default it keeps all decoded images of a dataset under 250 MB in memory.
"""

import argparse
from typing import Any

from epochs import BATCH, arguments, measure_epochs

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--autocache", action=argparse.BooleanOptionalAction, required=True)
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Any, as pyright cannot resolve the decorators of TFDS.
    builder: Any = tfds.builder_from_directory(str(options.inputs / "data"))
    config = tfds.ReadConfig(try_autocache=options.autocache)
    dataset = builder.as_dataset(split="train", as_supervised=True, shuffle_files=True, read_config=config)
    dataset = dataset.shuffle(1000).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    measure_epochs(lambda _: dataset, options.epochs, "tensorflow-datasets", "tensorflow")


if __name__ == "__main__":
    main()
