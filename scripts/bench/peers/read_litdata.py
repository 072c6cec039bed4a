"""litdata: StreamingDataset and StreamingDataLoader over unchanged JPEGs."""

import os
from pathlib import Path
from typing import Any

import simplejpeg
from epochs import BATCH, arguments, list_files, measure_epochs
from litdata import StreamingDataLoader, StreamingDataset, optimize  # pyright: ignore[reportMissingImports]


def read(photo: tuple[str, int]) -> dict[str, object]:
    """Returns the bytes of the photo unchanged."""
    path, label = photo
    return {"image": Path(path).read_bytes(), "label": label}


class Photos(StreamingDataset):
    """Decodes each photo."""

    def __getitem__(self, index: Any) -> tuple:
        sample = super().__getitem__(index)
        return simplejpeg.decode_jpeg(sample["image"], "RGB"), sample["label"]


def main() -> None:
    """Runs the program."""
    options = arguments(str(__doc__)).parse_args()
    if not options.own.exists():
        for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
            os.environ[name] = str(options.own.with_name(name.lower()))
        optimize(
            fn=read,
            inputs=[(str(path), label) for path, label in list_files(options.inputs / "files")],
            output_dir=str(options.own),
            chunk_bytes="64MB",
            num_workers=options.workers,
            start_method="fork",
            verbose=False,
        )
    loader = StreamingDataLoader(
        Photos(str(options.own), shuffle=True),
        batch_size=BATCH,
        num_workers=options.workers,
        persistent_workers=True,
    )
    measure_epochs(lambda _: loader, options.epochs, "litdata", "torch", "simplejpeg")


if __name__ == "__main__":
    main()
