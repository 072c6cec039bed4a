"""Finds the source file of a record in the manifest."""

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.manifest import FILENAME, open_manifest
from shardstream.ingest.dataset.metadata import DatasetInfo

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """Location of a record: the number of its shard in the split, and its number in the shard."""

    split: str
    shard: int
    number: int


class Origin(NamedTuple):
    """Source of a record: path, SHA-256 in hexadecimal, and class name."""

    path: str
    sha256: str
    class_name: str


def find_origins(info: DatasetInfo, places: Iterable[Place]) -> dict[Place, Origin]:
    """Returns the manifest entries of those records that have one; empty if the manifest cannot be read."""
    wanted = set(places)
    try:
        return {place: origin for place, origin in _rows(info, wanted) if place in wanted}
    except DatasetError as error:
        logger.warning("%s", error)
        return {}


def _rows(info: DatasetInfo, wanted: set[Place]) -> Iterator[tuple[Place, Origin]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not info.manifest_sha256:  # Not one of our datasets.
        return
    numbers = sorted({place.number for place in wanted})
    columns = ["split", "shard", "position", "path", "sha256", "class_name"]
    with open_manifest(info.data_dir / FILENAME) as manifest:
        for batch in manifest.iter_batches(columns=columns):
            chosen = pc.call_function(
                "is_in", [batch["position"]], pc.SetLookupOptions(pa.array(numbers, pa.int32()))
            )
            for row in batch.filter(chosen).to_pylist():
                place = Place(row["split"], row["shard"], row["position"])
                yield place, Origin(row["path"], row["sha256"], row["class_name"])
