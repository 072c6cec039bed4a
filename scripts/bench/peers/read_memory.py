"""shardstream: the peak memory of the process, part by part, while it streams or reads from a cache."""

import itertools
import json
import resource

from epochs import BATCH, SIZE, arguments

from shardstream.train.startup import start_tensorflow


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--data", required=True, help="the dataset in the folder of the inputs")
    parser.add_argument("--steps", type=int, required=True, help="of a part")
    parser.add_argument("--cache", default="none")
    options = parser.parse_args()
    start_tensorflow()
    from shardstream.train.data.dataset import load_dataset

    data = load_dataset(options.inputs / options.data)
    batches = iter(
        data.train_batches(
            BATCH,
            seed=1,
            image_size=data.image_size or SIZE,
            cache=options.cache,
            cache_dir=options.own / "cache",
        )
    )
    peaks = []
    for _ in range(options.epochs):
        for _ in itertools.islice(batches, options.steps):
            pass
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({"peak_mb": peaks}))


if __name__ == "__main__":
    main()
