"""shardstream: the largest memory of the process, part by part, while it streams or reads from a cache."""

import itertools
import json
import resource

from epochs import BATCH, arguments

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--data", required=True, help="the dataset in the folder of the inputs")
    parser.add_argument("--steps", type=int, required=True, help="of a part")
    parser.add_argument("--cache", default="none")
    options = parser.parse_args()
    start_tensorflow()
    from shardstream.train.data.cache import make_source
    from shardstream.train.data.cache_folder import CacheFolder
    from shardstream.train.data.input_pipeline import make_train_batches

    info = DatasetInfo.load(options.inputs / options.data)
    source = make_source(
        info,
        "train",
        tier=options.cache,
        image_size=info.image.size or 300,
        folder=CacheFolder(options.own / "cache"),
    )
    epochs = (
        make_train_batches(source, seed=1, epoch=epoch, batch_size=BATCH) for epoch in itertools.count()
    )
    batches = map(source.on_devices, itertools.chain.from_iterable(epochs))
    peaks = []
    for _ in range(options.epochs):
        for _ in itertools.islice(batches, options.steps):
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({"peak_mb": peaks}))


if __name__ == "__main__":
    main()
