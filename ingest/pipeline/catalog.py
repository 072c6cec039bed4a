"""All files and what became of them, in columns: 85 bytes a file, so that a hundred million fit into memory."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from shardstream.ingest.dataset.split_hash import SPLIT_NAMES, hash_all_to_uint64
from shardstream.ingest.pipeline.listing import NO_SPLIT, Listing, shown
from shardstream.ingest.pipeline.results import (
    CONFLICT,
    DUPLICATE,
    REJECTED,
    REPAIRED,
    UNCHANGED,
    VERDICTS,
    TaskResults,
)

_ROWS_AT_ONCE = 1 << 18


class Catalog:
    """A row for each file of the listing, in its order.

    Attributes:
        listing: The files.
        sources: The files that hold records.
        reasons: How files were repaired or why they were rejected, each once; the first is empty.
        digests: SHA-256 of each file's content, uint64 [files, 4], all 0 for one that could not be read.
        judged: What became of the file alone, an index into VERDICTS, uint8 [files].
        verdicts: What became of it among the others, an index into VERDICTS, uint8 [files].
        reason_numbers: An index into `reasons`, uint32 [files].
        source_numbers: Where the record is: an index into `sources`, uint32 [files],
        offsets: the offset there, uint64 [files],
        lengths: and its bytes, framing included, 0 where there is none, uint32 [files].
        heights, widths: Of the upright pictures, in pixels, uint32 [files].
        has_hash: Whether the perceptual hash is known, bool [files].
        hashes: The perceptual hash, uint64 [files].
        originals: For a duplicate the row that it is a duplicate of, for others the row itself, uint32 [files].
        splits: An index into SPLIT_NAMES, NO_SPLIT for a file that is in none, uint8 [files].
        shards: The number of the shard that holds the record, uint32 [files].
        positions: The number of the record in its shard, uint32 [files].
    """

    def __init__(self, listing: Listing) -> None:
        n = len(listing)
        self.listing = listing
        self.sources: list[str] = []
        self.reasons: list[str] = [""]
        self._reason_numbers: dict[str, int] = {"": 0}
        self.digests = np.zeros((n, 4), np.uint64)
        self.judged = np.full(n, REJECTED, np.uint8)
        self.verdicts = np.full(n, REJECTED, np.uint8)
        self.reason_numbers = np.zeros(n, np.uint32)
        self.source_numbers = np.zeros(n, np.uint32)
        self.offsets = np.zeros(n, np.uint64)
        self.lengths = np.zeros(n, np.uint32)
        self.heights = np.zeros(n, np.uint32)
        self.widths = np.zeros(n, np.uint32)
        self.has_hash = np.zeros(n, bool)
        self.hashes = np.zeros(n, np.uint64)
        self.originals = np.arange(n, dtype=np.uint32)
        self.splits = np.full(n, NO_SPLIT, np.uint8)
        self.shards = np.zeros(n, np.uint32)
        self.positions = np.zeros(n, np.uint32)

    @property
    def labels(self) -> npt.NDArray[np.uint32]:
        """The class of each file, uint32 [files]."""
        return self.listing.labels

    @property
    def counts(self) -> dict[str, int]:
        """The number of files by verdict."""
        return self.verdict_counts(np.ones(len(self.verdicts), bool))

    def verdict_counts(self, chosen: npt.NDArray[np.bool_]) -> dict[str, int]:
        """Returns the number of the `chosen` files, bool [files], by verdict."""
        counts = np.bincount(self.verdicts[chosen], minlength=len(VERDICTS)).tolist()
        return dict(zip(VERDICTS, counts, strict=True))

    def class_counts(self, split: str) -> tuple[int, ...]:
        """Returns the number of records of each class in `split`."""
        labels = self.labels[self.splits == SPLIT_NAMES.index(split)]
        return tuple(np.bincount(labels, minlength=len(self.listing.class_names)).tolist())

    def kept(self) -> npt.NDArray[np.bool_]:
        """Returns which files have a record of their own, bool [files]."""
        return self.verdicts <= REPAIRED

    def reason(self, row: int) -> str:
        """Returns how a file was repaired, why it was rejected, or which file has the same content."""
        original = shown(self.listing.path(int(self.originals[row])))
        if self.verdicts[row] == DUPLICATE:
            return f"same content as {original}"
        if self.verdicts[row] == CONFLICT:
            return f"multi-label: the same image is under several classes, first as {original}"
        return self.reasons[self.reason_numbers[row]]

    def reason_number(self, reason: str) -> int:
        """Returns the index of `reason` in `reasons`, new or not."""
        number = self._reason_numbers.setdefault(reason, len(self.reasons))
        if number == len(self.reasons):
            self.reasons.append(reason)
        return number

    def add_unit(self, rows: npt.NDArray[np.uint32], pictures: str, unit: TaskResults) -> int:
        """Notes what a unit of the map step came to; returns how many files have another content than was known.

        Args:
            rows: The files of the unit.
            pictures: The file with their records.
            unit: What became of them.
        """
        judged = unit.table["verdict"] != UNCHANGED  # Of the others all is known.
        self.digests[rows] = unit.table["digest"]
        rows, table = rows[judged], unit.table[judged]
        self.judged[rows] = table["verdict"]
        numbers = np.fromiter(map(self.reason_number, unit.reasons), np.uint32, len(unit.reasons))
        self.reason_numbers[rows] = numbers[table["reason"]]
        self.source_numbers[rows] = len(self.sources)
        self.sources.append(pictures)
        self.offsets[rows] = table["offset"]
        self.lengths[rows] = table["num_bytes"]
        self.heights[rows] = table["source_height"]
        self.widths[rows] = table["source_width"]
        self.has_hash[rows] = table["has_hash"]
        self.hashes[rows] = table["perceptual_hash"]
        return len(rows)


def settle_identical(catalog: Catalog) -> None:
    """Keeps one of identical files: the first by path. Under two classes none is right, so none is kept.

    Where the source gives the splits, the copy of the test split is kept before that of validation and of train: a copy
    in training would make the held-out one easier than it is.
    """
    catalog.verdicts[:] = catalog.judged
    catalog.originals[:] = np.arange(len(catalog.originals))
    # Stable: of identical files the first by path comes first.
    order = np.lexsort((*_held_out_last(catalog.listing), *catalog.digests.T))
    order = order[catalog.judged[order] <= REPAIRED]
    if not len(order):
        return
    differs = np.zeros(len(order) - 1, bool)
    for word in range(4):  # One after the other: a copy of all digests would be the largest thing in memory.
        words = catalog.digests[order, word]
        differs |= words[1:] != words[:-1]
    starts = np.flatnonzero(np.concatenate(([True], differs)))
    sizes = np.diff(np.append(starts, len(order)))
    labels = catalog.labels[order]
    disagree = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    catalog.originals[order] = np.repeat(order[starts], sizes)
    catalog.verdicts[order[catalog.originals[order] != order]] = DUPLICATE
    catalog.verdicts[order[np.repeat(disagree, sizes)]] = CONFLICT


def _held_out_last(listing: Listing) -> list[npt.NDArray[np.uint8]]:
    """Returns the key that sorts given splits as test, validation, train; none where no splits are given."""
    return [(NO_SPLIT - listing.given_splits).astype(np.uint8)] if len(listing.given_splits) else []


def draw_rows(
    catalog: Catalog, rows: npt.NDArray[np.uint32], seed: int, purpose: str
) -> npt.NDArray[np.uint64]:
    """Returns the number that the content of each row is drawn, uint64 [rows]."""
    numbers = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        chosen = rows[start : start + _ROWS_AT_ONCE]
        numbers[start : start + len(chosen)] = hash_all_to_uint64(
            seed, purpose, catalog.digests[chosen].astype(">u8").tobytes()
        )
    return numbers


def shuffled_rows(
    catalog: Catalog, split: str, *, seed: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    """Returns the rows of `split` in the order of hashes of their content and the seed, and the hashes, uint64 [rows].

    Shards that are read one after the other are then mixed already, and a new file moves none of the others.
    """
    rows = np.flatnonzero(catalog.splits == SPLIT_NAMES.index(split)).astype(np.uint32)
    hashes = draw_rows(catalog, rows, seed, "order")
    rows = rows[np.argsort(hashes, kind="stable")]
    hashes.sort()  # Where they are: a sorted copy would be the largest thing in memory.
    return rows, hashes


def rejected_files(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yields the path and the reason of each rejected file."""
    for row in np.flatnonzero(catalog.verdicts == REJECTED).tolist():
        yield shown(catalog.listing.path(row)), catalog.reason(row)
