"""shardstream: the time from the name of a dataset folder to its first batch, TensorFlow being there."""

import json
import time

from epochs import BATCH, arguments

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--data", required=True, help="the dataset in the folder of the inputs")
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    from shardstream.train.data.cache import make_source
    from shardstream.train.data.input_pipeline import make_train_batches

    tf.zeros(1)
    began = time.perf_counter()
    info = DatasetInfo.load(options.inputs / options.data)
    source = make_source(info, "train", tier="none", image_size=info.image.size or 300)
    next(iter(make_train_batches(source, seed=1, epoch=0, batch_size=BATCH)))
    print(json.dumps({"secs": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
