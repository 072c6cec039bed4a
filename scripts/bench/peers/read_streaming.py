"""MosaicML Streaming: MDS shards, StreamingDataset and torch's DataLoader."""

from typing import Any

import simplejpeg
from epochs import BATCH, arguments, list_files, measure_epochs
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # pyright: ignore[reportMissingImports]
from streaming.base.util import clean_stale_shared_memory  # pyright: ignore[reportMissingImports]


class Photos(StreamingDataset):
    """Decodes each photo."""

    def __getitem__(self, index: Any) -> tuple:
        sample = super().__getitem__(index)
        return simplejpeg.decode_jpeg(sample["image"], "RGB"), sample["label"]


def main() -> None:
    """Runs the program."""
    options = arguments(str(__doc__)).parse_args()
    if not options.own.exists():
        with MDSWriter(out=str(options.own), columns={"image": "bytes", "label": "int"}) as writer:
            for path, label in list_files(options.inputs / "files"):
                writer.write({"image": path.read_bytes(), "label": label})
    clean_stale_shared_memory()
    dataset = Photos(local=str(options.own), shuffle=True, batch_size=BATCH)
    loader = StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=options.workers, persistent_workers=True
    )
    measure_epochs(lambda _: loader, options.epochs, "mosaicml-streaming", "torch", "simplejpeg")


if __name__ == "__main__":
    main()
