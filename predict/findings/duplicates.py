"""Duplicate images in different splits, or with different labels."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.manifest import open_manifest
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.pipeline.look_alikes import NEITHER, SAME
from shardstream.ingest.pipeline.near_duplicates import find_pairs
from shardstream.predict.findings.same_image import classify_pairs, num_compared
from shardstream.predict.inference.classifier import BATCH_SIZE
from shardstream.predict.inference.records import read_batches
from shardstream.predict.inference.thumbnails import THUMBNAIL_SIDE, Picture, make_thumbnail
from shardstream.train.runs.saved_model import ModelInfo

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

MAX_SHOWN = 24  # Of each kind on the page; findings.csv has all.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ManifestEntry:
    """One of two similar images.

    Attributes:
        path: Path of the source file, as in the manifest.
        class_name: Name of its class.
        split: Name of its split.
        position: Position of its record in that split.
    """

    path: str
    class_name: str
    split: str
    position: int


@dataclasses.dataclass(frozen=True, slots=True)
class EntryPair:
    """Two copies of an image, or shots of one scene; the one of the predicted split first."""

    one: ManifestEntry
    other: ManifestEntry
    same: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Duplicates in the complete dataset: copies of an image, or shots of one scene with consecutive file names.

    Attributes:
        num_leaks: Pairs of one class in different splits, one of them in the split that was predicted.
        num_copies: How many of these are the same image, by their pixels.
        num_contradictions: Pairs of different classes that are the same image.
        num_repeats: Pairs of one class in the split that was predicted.
        num_conflicts: Files excluded by ingest, because the identical image is in two classes.
        leaks: All leaks, copies first.
        contradictions: All contradictions.
        repeats: All repeats.
        num_unknown: Pairs of similar hashes that were not compared, as there are too many.
    """

    num_leaks: int
    num_copies: int
    num_contradictions: int
    num_repeats: int
    num_conflicts: int
    leaks: Sequence[EntryPair]
    contradictions: Sequence[EntryPair]
    repeats: Sequence[EntryPair]
    num_unknown: int = 0

    @property
    def copies(self) -> list[ManifestEntry]:
        """All entries that the page shows, without repetition."""
        lists = (self.leaks, self.contradictions, self.repeats)
        pairs = [pair for pairs in lists for pair in pairs[:MAX_SHOWN]]
        return list(dict.fromkeys(copy for pair in pairs for copy in (pair.one, pair.other)))


def find_duplicates(info: DatasetInfo, split_name: str) -> Duplicates | None:
    """Returns the duplicates of a dataset; None if it has no readable manifest.

    A model does better on an image if it was trained on a copy. The perceptual hashes of the manifest select the
    candidates; images of one object on the same background also have similar hashes, so only pairs confirmed by their
    pixels are listed.
    """
    path = info.data_dir / MANIFEST
    try:
        with open_manifest(path) as manifest:
            names = ["class_name", "split", "shard", "position", "perceptual_hash", "verdict"]
            table = manifest.read(columns=names)
            hashes = table["perceptual_hash"].fill_null(0).to_numpy()
            splits, classes = (
                table[name].combine_chunks().indices.fill_null(-1).to_numpy()
                for name in ("split", "class_name")
            )
            # Only images with a record: a duplicate that was excluded does no harm.
            pairs = find_pairs(np.where(splits >= 0, hashes, 0).astype(np.uint64)).astype(np.int64)
            # Nearest first: if there are too many, the others are not compared.
            bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
            pairs = pairs[np.argsort(bits, kind="stable")]
            rows, places = np.unique(pairs, return_inverse=True)
            paths = manifest.read(columns=["path"])["path"].take(rows)
            here = table["split"].combine_chunks().dictionary.to_pylist().index(split_name)
    except DatasetError as error:
        logger.warning("%s", error)
        return None
    entries = _Entries(info, table.take(rows), paths)
    pairs = places.reshape(-1, 2)
    splits, classes = splits[rows], classes[rows]
    # The entry of the predicted split comes first.
    turned = (splits[pairs[:, 0]] != here) & (splits[pairs[:, 1]] == here)
    pairs[turned] = pairs[turned][:, ::-1]
    a, b = pairs.T
    inside, differ = splits[a] == here, classes[a] != classes[b]
    pairs_of = {
        "contradictions": pairs[differ][np.argsort(~inside[differ], kind="stable")],
        "leaks": pairs[inside & ~differ & (splits[a] != splits[b])],
        "repeats": pairs[inside & ~differ & (splits[a] == splits[b])],
    }
    num_unknown = sum(map(len, pairs_of.values())) - sum(num_compared(pairs_of).values())
    kinds_of = classify_pairs(info, entries.splits, entries.positions, entries.path, pairs_of)
    for name, kinds in kinds_of.items():
        listed = np.flatnonzero(kinds == SAME if name == "contradictions" else kinds != NEITHER)
        listed = listed[np.argsort(kinds[listed] != SAME, kind="stable")]
        pairs_of[name], kinds_of[name] = pairs_of[name][listed], kinds[listed] == SAME
    lists = {name: _Pairs(entries, pairs_of[name], same) for name, same in kinds_of.items()}
    return Duplicates(
        num_leaks=len(lists["leaks"]),
        num_copies=int(kinds_of["leaks"].sum()),
        num_contradictions=len(lists["contradictions"]),
        num_repeats=len(lists["repeats"]),
        num_conflicts=table["verdict"].to_pylist().count("conflict"),
        leaks=lists["leaks"],
        contradictions=lists["contradictions"],
        repeats=lists["repeats"],
        num_unknown=num_unknown,
    )


class _Entries:
    """Rows of the manifest, stored as columns: there may be many."""

    def __init__(self, info: DatasetInfo, rows: "pa.Table", paths: "pa.ChunkedArray") -> None:
        self._rows, self._paths = rows, paths
        self.splits: list[str] = rows["split"].to_pylist()
        firsts = {
            name: np.cumsum([0, *(shard.num_examples for shard in split.shards)])
            for name, split in info.splits.items()
        }
        shards, numbers = (rows[name].fill_null(0).to_numpy() for name in ("shard", "position"))
        self.positions = np.array(
            [firsts[split][shard] for split, shard in zip(self.splits, shards, strict=True)], np.int64
        ) + np.asarray(numbers, np.int64)

    def path(self, row: int) -> str:
        return self._paths[row].as_py()

    def __getitem__(self, row: int) -> ManifestEntry:
        return ManifestEntry(
            path=self.path(row),
            class_name=self._rows["class_name"][row].as_py(),
            split=self.splits[row],
            position=int(self.positions[row]),
        )


class _Pairs(Sequence[EntryPair]):
    """Pairs of entries, created on access."""

    def __init__(self, entries: _Entries, pairs: np.ndarray, same: np.ndarray) -> None:
        self._entries, self._pairs, self._same = entries, pairs, same

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> EntryPair: ...
    @overload
    def __getitem__(self, index: slice) -> "_Pairs": ...
    def __getitem__(self, index: int | slice) -> "EntryPair | _Pairs":
        if isinstance(index, slice):
            return _Pairs(self._entries, self._pairs[index], self._same[index])
        one, other = self._pairs[index].tolist()
        return EntryPair(self._entries[one], self._entries[other], bool(self._same[index]))


def load_thumbnails(
    info: DatasetInfo, copies: Sequence[ManifestEntry], *, model: ModelInfo, side: int = THUMBNAIL_SIDE
) -> dict[ManifestEntry, Picture]:
    """Returns thumbnails of `copies`; none for splits whose shards are not available."""
    pictures: dict[ManifestEntry, Picture] = {}
    for split in sorted({copy.split for copy in copies}):
        wanted = [copy for copy in copies if copy.split == split]
        positions = np.unique([copy.position for copy in wanted])
        batches = read_batches(
            info, split, positions, image_size=model.image_size, resize=model.resize, batch_size=BATCH_SIZE
        )
        try:
            thumbnails = [make_thumbnail(image, side) for batch in batches for image in batch.images]
        except DatasetError as error:
            logger.warning("findings of split %r are shown without images: %s", split, error)
        else:
            places = np.searchsorted(positions, [copy.position for copy in wanted])
            pictures |= {copy: thumbnails[place] for copy, place in zip(wanted, places, strict=True)}
    return {copy: pictures[copy] for copy in copies if copy in pictures}
