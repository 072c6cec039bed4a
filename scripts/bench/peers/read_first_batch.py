"""shardstream: the time from the path of a dataset folder to its first batch, after TensorFlow has started."""

import json
import time

from epochs import BATCH, SIZE, arguments

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--data", required=True, help="the dataset in the folder of the inputs")
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    from shardstream.train.data.dataset import load_dataset

    tf.zeros(1)
    began = time.perf_counter()
    data = load_dataset(options.inputs / options.data)
    next(iter(data.train_batches(BATCH, seed=1, image_size=data.image_size or SIZE)))
    print(json.dumps({"secs": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
