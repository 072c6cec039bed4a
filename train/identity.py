"""Whether a shard is the one that was written, by its first record: a file of another place or dataset is whole, too.

A record that is damaged is found by its checksum, and a file whose records have other lengths by the offsets of its
blocks. What is left are files whose records have equal lengths, such as raw pictures. The manifest knows the photo and
the class of each record. One of each shard is compared with it, when the shard is first read: that costs a block for
each shard. The SHA-256 of whole shards, as `shardstream-ingest verify` takes it, would cost a tenth of the first epoch.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

from ingest.errors import DatasetError
from ingest.metadata import DatasetInfo, SplitInfo
from ingest.records import RecordError
from train.example_features import find_features
from train.order import Blocks
from train.origin import Origin, Place, find_origins
from train.shard_reader import read_block

_SHA256 = b"image/sha256"


class ShardIdentities:
    """The shards of one split, each compared once with what the manifest says of it."""

    def __init__(self, info: DatasetInfo, split: SplitInfo) -> None:
        """Begins to read the manifest: a million photos take it a second, which the first batch need not wait for."""
        self._info = info
        self._split = split
        self._lock = threading.Lock()
        self._seen: set[int] = set()
        loader = ThreadPoolExecutor(1)
        self._origins = loader.submit(self._load)
        loader.shutdown(wait=False)

    def see(self, shard: int) -> None:
        """Compares shard number `shard`, which is read; several threads may call it at a time.

        Raises:
            DatasetError: It is another file.
        """
        with self._lock:
            if shard in self._seen:
                return
            self._seen.add(shard)
        self._compare(shard)

    def _load(self) -> dict[Place, Origin]:
        if not self._info.manifest_sha256:  # Not one of ours.
            return {}
        places = [Place(self._split.name, shard, 0) for shard in range(len(self._split.shards))]
        return find_origins(self._info, places)

    def _compare(self, shard: int) -> None:
        origin = self._origins.result().get(Place(self._split.name, shard, 0))
        path = self._info.data_dir / self._split.shards[shard].filename
        if origin is None:
            return
        first = Blocks.of_shard(self._split.shards[shard])
        (record, *_) = read_block(path, 0, int(first.lengths[0]), int(first.counts[0]))
        if isinstance(record, str):  # Of what cannot be read its reader tells.
            return
        label_key = self._info.label_key.encode()
        try:
            features = find_features(record, (_SHA256, label_key))
        except RecordError:
            return
        sha256, label = features.get(_SHA256), features.get(label_key)
        expected = self._info.class_names.index(origin.class_name)
        if not isinstance(sha256, memoryview) or (bytes(sha256), label) != (origin.sha256.encode(), expected):
            raise DatasetError(
                f"{path}: its first record is not that of {origin.path} in class {origin.class_name!r}, which the "
                f"manifest has there: a foreign or swapped shard; {self._info.remedy}"
            )
