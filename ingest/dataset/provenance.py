"""Maps the records of a shard to their source files."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shardstream.ingest.dataset.manifest import read_rows
from shardstream.ingest.dataset.metadata import DatasetInfo

_COLUMNS = ("path", "size_bytes", "sha256", "class_name", "position")


class RecordSource(NamedTuple):
    """The source file of a record.

    Attributes:
        path: Path as in the manifest: relative to the source folder, with bytes that are not UTF-8 escaped.
        size_bytes: Its size at the time.
        sha256: Its SHA-256 at the time, in hexadecimal.
        class_name: Its class.
    """

    path: str
    size_bytes: int
    sha256: str
    class_name: str


class RecordSources:
    """The source files of the records of some shards, about 150 bytes per record."""

    def __init__(self, info: DatasetInfo, shards: Sequence[tuple[str, int]]) -> None:
        """Scans the manifest.

        Args:
            info: The dataset.
            shards: Split and number of each shard.

        Raises:
            DatasetError: The manifest is missing or corrupt, or does not match the metadata.
        """
        import pyarrow as pa

        self._numbers = {place: number for number, place in enumerate(shards)}
        tables, numbers = [], []
        for rows in read_rows(info):
            places = zip(rows["split"].to_pylist(), rows["shard"].to_pylist(), strict=True)
            found = np.array([self._numbers.get(place, np.nan) for place in places])
            wanted = ~np.isnan(found)
            tables.append(rows.select(_COLUMNS).filter(pa.array(wanted)))
            numbers.append(found[wanted])
        self._table = pa.Table.from_batches(tables).unify_dictionaries()
        ordered = np.concatenate(numbers)
        self._order = np.lexsort((self._table["position"].to_numpy(), ordered))
        self._starts = np.searchsorted(ordered[self._order], np.arange(len(shards) + 1))

    def of(self, split: str, number: int) -> list[RecordSource]:
        """Returns the source file of each record of a shard, in record order."""
        shard = self._numbers[split, number]
        rows = self._table.take(self._order[self._starts[shard] : self._starts[shard + 1]])
        return [
            RecordSource(*row) for row in zip(*(rows[name].to_pylist() for name in _COLUMNS[:4]), strict=True)
        ]
