"""All files and their results, in columns: 89 bytes per file, so that a hundred million fit into memory."""

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
    """One row per file of the listing, in its order.

    Attributes:
        listing: The files.
        sources: The files that hold records.
        reasons: How files were repaired or why they were rejected, without repetition; the first is empty.
        digests: SHA-256 of each file's content, uint64 [files, 4], all 0 for a file that could not be read.
        judged: Verdict on the file alone, an index into VERDICTS, uint8 [files].
        verdicts: Verdict after comparison with the other files, an index into VERDICTS, uint8 [files].
        reason_numbers: An index into `reasons`, uint32 [files].
        source_numbers: The file with the record, an index into `sources`, uint32 [files].
        offsets: Byte offset of the record in that file, uint64 [files].
        lengths: Bytes of the record including framing, 0 if there is no record, uint32 [files].
        record_labels: The class in the record, which is not the current one of a file that moved or if labels were
            renumbered, uint32 [files].
        heights, widths: Size of the upright images in pixels, uint32 [files].
        has_hash: Whether the perceptual hash is known, bool [files].
        hashes: The perceptual hash, uint64 [files].
        originals: The row that a duplicate is a duplicate of; for other files the row itself, uint32 [files].
        splits: An index into SPLIT_NAMES, or NO_SPLIT, uint8 [files].
        shards: The number of the shard that holds the record, uint32 [files].
        positions: The index of the record in its shard, uint32 [files].
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
        self.record_labels = np.zeros(n, np.uint32)
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
        """Returns the mask of files that have their own record, bool [files]."""
        return self.verdicts <= REPAIRED

    def largest_side(self) -> int | None:
        """Returns height or width, the larger, of the largest image with a record; None if no size is known."""
        kept = self.kept()
        return max(int(sides[kept].max(initial=0)) for sides in (self.heights, self.widths)) or None

    def reason(self, row: int) -> str:
        """Returns how a file was repaired, why it was rejected, or which file has the same content."""
        original = shown(self.listing.path(int(self.originals[row])))
        if self.verdicts[row] == DUPLICATE:
            return f"same content as {original}"
        if self.verdicts[row] == CONFLICT and self.originals[row] == row:
            return "multi-label: the same image is under other classes too"
        if self.verdicts[row] == CONFLICT:
            return f"multi-label: the same image is under several classes, first as {original}"
        return self.reasons[self.reason_numbers[row]]

    def reason_number(self, reason: str) -> int:
        """Returns the index of `reason` in `reasons`, adding it if it is new."""
        number = self._reason_numbers.setdefault(reason, len(self.reasons))
        if number == len(self.reasons):
            self.reasons.append(reason)
        return number

    def add_unit(self, rows: npt.NDArray[np.uint32], pictures: str, unit: TaskResults) -> int:
        """Stores the results of a map task; returns the number of files whose content differs from the known one.

        Args:
            rows: The files of the task.
            pictures: Path of the file with their records.
            unit: Their results.
        """
        judged = unit.table["verdict"] != UNCHANGED  # The rows of unchanged files are already filled.
        self.digests[rows] = unit.table["digest"]
        rows, table = rows[judged], unit.table[judged]
        self.judged[rows] = table["verdict"]
        numbers = np.fromiter(map(self.reason_number, unit.reasons), np.uint32, len(unit.reasons))
        self.reason_numbers[rows] = numbers[table["reason"]]
        self.source_numbers[rows] = len(self.sources)
        self.sources.append(pictures)
        self.offsets[rows] = table["offset"]
        self.lengths[rows] = table["num_bytes"]
        self.record_labels[rows] = table["label"]
        self.heights[rows] = table["source_height"]
        self.widths[rows] = table["source_width"]
        self.has_hash[rows] = table["has_hash"]
        self.hashes[rows] = table["perceptual_hash"]
        return len(rows)


def settle_identical(catalog: Catalog) -> None:
    """Keeps the first by path of identical files, or none of them if they are in several classes.

    If the source gives the splits, test copies are kept before validation and train copies: a copy in the training data
    would make the held-out example too easy.
    """
    catalog.verdicts[:] = catalog.judged
    catalog.originals[:] = np.arange(len(catalog.originals))
    # lexsort is stable: identical files stay in path order.
    order = np.lexsort((*_held_out_last(catalog.listing), *catalog.digests.T))
    order = order[catalog.judged[order] <= REPAIRED]
    if not len(order):
        return
    differs = np.zeros(len(order) - 1, bool)
    for word in range(4):  # Word by word: a copy of all digests would be the largest array in memory.
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
    """Returns the key that sorts given splits as test, validation, train; empty if no splits are given."""
    return [(NO_SPLIT - listing.given_splits).astype(np.uint8)] if len(listing.given_splits) else []


def draw_rows(
    catalog: Catalog, rows: npt.NDArray[np.uint32], seed: int, purpose: str
) -> npt.NDArray[np.uint64]:
    """Returns the hash of each row's content that determines its split, uint64 [rows]."""
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

    Shards read sequentially are then already shuffled, and a new file does not move any other.
    """
    rows = np.flatnonzero(catalog.splits == SPLIT_NAMES.index(split)).astype(np.uint32)
    hashes = draw_rows(catalog, rows, seed, "order")
    rows = rows[np.argsort(hashes, kind="stable")]
    hashes.sort()  # In place: a sorted copy would be the largest array in memory.
    return rows, hashes


def rejected_files(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yields the path and the reason of each rejected file."""
    for row in np.flatnonzero(catalog.verdicts == REJECTED).tolist():
        yield shown(catalog.listing.path(row)), catalog.reason(row)
