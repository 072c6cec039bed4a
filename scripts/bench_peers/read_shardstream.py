"""shardstream: the batches of training, with each cache tier; the first epoch is the one that decodes."""

from collections.abc import Iterable
from typing import Any

from epochs import BATCH, SIZE, arguments, measure_epochs

from ingest.metadata import DatasetInfo
from train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--cache", required=True)
    parser.add_argument("--data", default="data", help="the dataset in the folder of the inputs")
    options = parser.parse_args()
    start_tensorflow()
    import tensorflow as tf

    from train.cache import make_source
    from train.input_pipeline import make_train_dataset

    tf.zeros(1)
    info = DatasetInfo.load(options.inputs / options.data)
    source = None

    def epoch(number: int) -> Iterable[Any]:
        nonlocal source
        if source is None:  # What opening it takes is of the first epoch.
            source = make_source(info, "train", tier=options.cache, image_size=SIZE)
        return make_train_dataset(source, seed=1, epoch=number, batch_size=BATCH)

    measure_epochs(epoch, options.epochs, "shardstream", "tensorflow")


if __name__ == "__main__":
    main()
