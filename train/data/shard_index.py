"""Where the records of foreign shards begin, and what labels they have: found once, by reading them through.

The index is kept in the folder of caches, never in the folder of the dataset, and found again by the paths, sizes
and times of the shards.
"""

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.safe_files import open_regular, read_regular
from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK, block_checksums
from shardstream.ingest.dataset.records import RecordError, read_records
from shardstream.train.data.example_features import find_features

logger = logging.getLogger(__name__)

_VERSION = 2
# Shards that are read at once.
_READERS = 8
_READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class IndexedShard:
    """One file of records.

    Attributes:
        num_bytes: The size of the file.
        num_examples: The number of records.
        block_offsets: The byte offset of record 0, 16, 32, ...
        block_checksums: Of the 16 records from there on.
        class_counts: The number of records of each label.
    """

    num_bytes: int
    num_examples: int
    block_offsets: tuple[int, ...]
    block_checksums: tuple[int, ...]
    class_counts: tuple[int, ...]


def index_shards(
    data_dir: Path, filenames: Sequence[str], label_key: bytes, num_classes: int, *, cache_dir: Path
) -> list[IndexedShard]:
    """Returns the index of each file, which is kept in `cache_dir`.

    Raises:
        DatasetError: A file is missing or damaged, or a record has no label that there is.
    """
    identity = _identity(data_dir, filenames, label_key, num_classes)
    kept = cache_dir / "indexes" / f"{identity}.json"
    try:
        return [
            IndexedShard(num_bytes, num_examples, *map(tuple, arrays))
            for num_bytes, num_examples, *arrays in json.loads(read_regular(kept, max_bytes=1 << 32))
        ]
    except (OSError, ValueError, TypeError):
        pass  # There is none yet, or no whole one.
    logger.info("%s: reads all records once, to find them by their number from now on", data_dir)
    with ThreadPoolExecutor(_READERS) as readers:
        paths = [data_dir / name for name in filenames]
        shards = list(readers.map(lambda path: _index(path, label_key, num_classes), paths))
    _keep(kept, shards)
    return shards


def _identity(data_dir: Path, filenames: Sequence[str], label_key: bytes, num_classes: int) -> str:
    """Returns what the index of these files is called."""
    identity = hashlib.sha256(repr((_VERSION, label_key, num_classes)).encode())
    for name in filenames:
        path = data_dir / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise DatasetError(f"{path}: no such shard; make or download the dataset again") from None
        identity.update(repr((os.fsencode(path.absolute()), stat.st_size, stat.st_mtime_ns)).encode())
    return identity.hexdigest()[:32]


def _index(path: Path, label_key: bytes, num_classes: int) -> IndexedShard:
    offsets: list[int] = []
    checksums: list[bytes] = []
    counts = [0] * num_classes
    number = 0
    try:
        with open_regular(path, buffering=_READ_BYTES) as file:
            for number, record in enumerate(read_records(file)):
                if number % RECORDS_PER_BLOCK == 0:
                    offsets.append(record.offset)
                checksums.append(record.checksum)
                label = find_features(record.payload, (label_key,)).get(label_key)
                if not isinstance(label, int) or not 0 <= label < num_classes:
                    raise DatasetError(
                        f"{path}: record {number} has the label {label}, there are {num_classes} classes; "
                        "only records with a label can be trained from"
                    )
                counts[label] += 1
            return IndexedShard(
                num_bytes=file.tell(),
                num_examples=sum(counts),
                block_offsets=tuple(offsets),
                block_checksums=block_checksums(checksums),
                class_counts=tuple(counts),
            )
    except RecordError as error:
        raise DatasetError(f"{path}: {error}; make or download the dataset again") from None
    except OSError as error:
        if is_machine_error(error):
            raise
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror}; make or download the dataset again"
        ) from None


def _keep(path: Path, shards: Sequence[IndexedShard]) -> None:
    """Writes the index beside and renames it. Without it the records are read again the next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump([dataclasses.astuple(shard) for shard in shards], file)
        Path(file.name).replace(path)
    except OSError as error:
        logger.warning(
            "%s: cannot be written (%s): all records are read again the next time", path, error.strerror
        )
