"""Grain: ArrayRecord, a global shuffle by index, threads that read and decode."""

from typing import Any

import grain.python as grain  # pyright: ignore[reportMissingImports]
import numpy as np
import simplejpeg
from array_record.python import array_record_module  # pyright: ignore
from epochs import BATCH, arguments, list_files, measure_epochs


def decode(record: bytes) -> tuple[np.ndarray, np.int32]:
    """Returns the image and its label, which is the first byte."""
    return simplejpeg.decode_jpeg(record[1:], "RGB"), np.int32(record[0])


def main() -> None:
    """Runs the program."""
    parser = arguments(str(__doc__))
    parser.add_argument("--parallel", choices=("threads", "processes"), required=True)
    options = parser.parse_args()
    path = options.own.with_suffix(".array_record")
    if not path.exists():
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for file, label in list_files(options.inputs / "files"):
            writer.write(bytes([label]) + file.read_bytes())
        writer.close()
    source: Any = grain.ArrayRecordDataSource(str(path))
    shuffled = grain.MapDataset.source(source).seed(1).shuffle().map(decode)

    def epoch(number: int) -> Any:
        # A different seed for every epoch, as in a repeated dataset.
        dataset = (
            shuffled if number == 0 else grain.MapDataset.source(source).seed(number).shuffle().map(decode)
        )
        if options.parallel == "processes":
            batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1)).batch(BATCH)
            return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=options.workers))
        return dataset.to_iter_dataset(grain.ReadOptions(num_threads=options.workers)).batch(BATCH)

    measure_epochs(epoch, options.epochs, "grain", "array-record", "simplejpeg")


if __name__ == "__main__":
    main()
