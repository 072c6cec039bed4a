"""WebDataset: tar files, a shuffle buffer, worker processes."""

import tarfile
from typing import Any

import simplejpeg
import webdataset as wds  # pyright: ignore[reportMissingImports]
from epochs import BATCH, arguments, list_files, measure_epochs


def main() -> None:
    """Runs the program."""
    options = arguments(str(__doc__)).parse_args()
    files = list_files(options.inputs / "files")
    num_shards = 4 * options.workers
    if not options.own.exists():
        options.own.mkdir()
        for shard in range(num_shards):
            with tarfile.open(options.own / f"{shard:03d}.tar", "w") as tar:
                for path, label in files[shard::num_shards]:
                    # The label is in the name: `1-123.jpg`.
                    tar.add(path, f"{label}-{path.stem}.jpg")
    dataset: Any = wds.WebDataset(
        str(options.own / f"{{000..{num_shards - 1:03d}}}.tar"), shardshuffle=num_shards, empty_check=False
    )
    dataset = dataset.shuffle(1000).map(
        lambda sample: (simplejpeg.decode_jpeg(sample["jpg"], "RGB"), int(sample["__key__"][0]))
    )
    loader = wds.WebLoader(
        dataset.batched(BATCH), batch_size=None, num_workers=options.workers, persistent_workers=True
    )
    measure_epochs(lambda _: loader, options.epochs, "webdataset", "torch", "simplejpeg")


if __name__ == "__main__":
    main()
