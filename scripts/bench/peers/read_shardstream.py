"""shardstream: the batches of training, with each cache tier; the first epoch is the one that decodes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epochs import BATCH, SIZE, arguments, measure_epochs

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--cache", required=True)
    parser.add_argument("--data", default="data", help="the dataset in the folder of the inputs")
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    from shardstream.train.data.cache import make_source
    from shardstream.train.data.cache_folder import CacheFolder
    from shardstream.train.data.input_pipeline import ExampleSource, make_train_batches

    tf.zeros(1)
    info = DatasetInfo.load(options.inputs / options.data)
    source: ExampleSource | None = None

    def epoch(number: int) -> Iterator[Any]:
        nonlocal source
        if (
            source is None
        ):  # What opening it takes is of the first epoch, as is filling what the batches left out.
            folder = CacheFolder(Path(temporary))
            source = make_source(info, "train", tier=options.cache, image_size=SIZE, folder=folder)
        yield from map(source.on_devices, make_train_batches(source, seed=1, epoch=number, batch_size=BATCH))
        source.complete()

    # Beside the inputs, as the system's temporary folder may be in memory.
    with tempfile.TemporaryDirectory(dir=options.inputs) as temporary:
        measure_epochs(epoch, options.epochs, "shardstream", "tensorflow")


if __name__ == "__main__":
    main()
