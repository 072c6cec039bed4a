"""Finds shards of the previous dataset that stay the same: they are hard-linked instead of written again."""

from collections.abc import Iterator, Mapping

import numpy as np

from shardstream.ingest.dataset.index import first_rows, open_index, scan_shards
from shardstream.ingest.dataset.metadata import FORMAT_VERSION, DatasetInfo, ShardInfo
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.shard_plan import Rows, ShardPlan


class PreviousShards:
    """The shards of the previous dataset. Records are reused from it (see `load_previous`) or were made since."""

    def __init__(self, old: DatasetInfo, catalog: Catalog) -> None:
        """Takes a catalog whose sources start with the shards of `old`."""
        self.info = old
        self._shards = tuple(old.shards.values())
        self._catalog = catalog

    @property
    def holds_all(self) -> bool:
        """Whether every record of the new dataset is a record of the old one."""
        return bool((self._catalog.source_numbers[self._catalog.kept()] < len(self._shards)).all())

    def find_unchanged(self, plan: ShardPlan) -> dict[str, ShardInfo]:
        """Returns the old shards with exactly the records of a planned shard, in order, by the planned file name."""
        found = {shard.path.name: self._find(shard.rows) for shard in plan.shards}
        return {name: shard for name, shard in found.items() if shard is not None}

    def index_rows(self, unchanged: Mapping[str, ShardInfo]) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the rows of the index of each shard from `find_unchanged`, `INDEX_DTYPE` [num_examples].

        Args:
            unchanged: The old shards by their new names.
        """
        has_index = self.info.format_version == FORMAT_VERSION
        index = open_index(self.info) if has_index else None
        firsts = first_rows(self.info)
        for name, shard in unchanged.items():
            if index is None:
                yield name, scan_shards(self.info, [shard])
            else:
                yield name, index[firsts[shard.filename] :][: shard.num_examples]

    def _find(self, rows: Rows) -> ShardInfo | None:
        catalog = self._catalog
        number = int(catalog.source_numbers[rows[0]])
        if number >= len(self._shards) or (catalog.source_numbers[rows] != number).any():
            return None
        shard = self._shards[number]
        ends = np.cumsum(catalog.lengths[rows], dtype=np.uint64)
        is_whole = len(rows) == shard.num_examples and ends[-1] == shard.num_bytes
        in_order = (catalog.offsets[rows[1:]] == ends[:-1]).all() and not catalog.offsets[rows[0]]
        has_labels = (catalog.record_labels[rows] == catalog.labels[rows]).all()
        return shard if is_whole and in_order and has_labels else None
