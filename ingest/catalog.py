"""All files and what became of them, in columns: 64 bytes a file, so that a hundred million fit into memory."""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ingest.scan import Listing, shown
from ingest.splits import SPLIT_NAMES, assign_split, draw
from ingest.units import Unit, read_verdicts

VERDICTS = ("ok", "repaired", "duplicate", "conflict", "rejected")
_OK, _REPAIRED, _DUPLICATE, _CONFLICT, _REJECTED = range(len(VERDICTS))
_NO_SPLIT = len(SPLIT_NAMES)


@dataclasses.dataclass(slots=True)
class Catalog:
    """A row for each file of the listing, in its order.

    Attributes:
        listing: The files.
        units: Those that the files were judged in, in order.
        digests: SHA-256 of each file's content, uint64 [files, 4], all 0 for one that could not be read.
        verdicts: An index into VERDICTS, uint8 [files].
        unit_numbers: Where the picture is: the index of its unit, uint32 [files],
        offsets: the offset in the unit's file of pictures, uint64 [files],
        lengths: and the bytes of its record there, uint32 [files].
        originals: For a duplicate the row that it is a duplicate of, for others the row itself, uint32 [files].
        splits: An index into SPLIT_NAMES, or one more for a file that is in none, uint8 [files].
        shards: The number of the shard that holds the record, uint32 [files].
        positions: The number of the record in its shard, uint32 [files].
    """

    listing: Listing
    units: Sequence[Unit]
    digests: npt.NDArray[np.uint64]
    verdicts: npt.NDArray[np.uint8]
    unit_numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]
    originals: npt.NDArray[np.uint32]
    splits: npt.NDArray[np.uint8]
    shards: npt.NDArray[np.uint32]
    positions: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.uint16]

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
        return self.verdicts <= _REPAIRED


def load_catalog(listing: Listing, units: Sequence[Unit]) -> Catalog:
    """Reads the verdicts of all units, and settles what can only be seen across them: identical files."""
    n = len(listing)
    catalog = Catalog(
        listing=listing,
        units=units,
        digests=np.zeros((n, 4), np.uint64),
        verdicts=np.zeros(n, np.uint8),
        unit_numbers=np.zeros(n, np.uint32),
        offsets=np.zeros(n, np.uint64),
        lengths=np.zeros(n, np.uint32),
        originals=np.arange(n, dtype=np.uint32),
        splits=np.full(n, _NO_SPLIT, np.uint8),
        shards=np.zeros(n, np.uint32),
        positions=np.zeros(n, np.uint32),
        labels=np.fromiter((file.label for file in listing), np.uint16, n),
    )
    for number, unit in enumerate(units):
        for row, verdict in enumerate(read_verdicts(unit), start=unit.first):
            catalog.digests[row] = np.frombuffer(bytes.fromhex(verdict.sha256.rjust(64, "0")), ">u8")
            catalog.verdicts[row] = VERDICTS.index(verdict.verdict)
            catalog.unit_numbers[row] = number
            catalog.offsets[row] = verdict.offset
            catalog.lengths[row] = verdict.num_bytes
    _settle_identical(catalog)
    return catalog


def assign_splits(
    catalog: Catalog, fractions: Mapping[str, float], *, seed: int, groups: re.Pattern[str] | None = None
) -> None:
    """Sets the split of each kept file: identical content, wherever it lies, always goes to the same one.

    Args:
        catalog: All files.
        fractions: The shares of the held-out splits.
        seed: Another one gives another assignment.
        groups: Files whose paths have the same first group go to the same split.
    """
    for row in np.flatnonzero(catalog.kept()):
        match = groups.search(shown(catalog.listing[int(row)].path)) if groups else None
        key = b"group/" + match[1].encode() if match and match[1] is not None else _key(catalog, row)
        split = assign_split(key, fractions, seed=seed)
        catalog.splits[row] = SPLIT_NAMES.index(split)


def shuffled_rows(catalog: Catalog, split: str, *, seed: int) -> npt.NDArray[np.intp]:
    """Returns the rows of `split` in an order that depends on their content and the seed alone.

    Shards that are read one after the other are then mixed already, and a new file moves none of the others.
    """
    rows = np.flatnonzero(catalog.splits == SPLIT_NAMES.index(split))
    numbers = np.fromiter((draw(seed, "order", _key(catalog, row)) for row in rows), np.uint64, len(rows))
    return rows[np.argsort(numbers, kind="stable")]


def rejection_reasons(catalog: Catalog) -> "collections.Counter[str]":
    """Returns how many files were rejected for each reason, without its details."""
    return collections.Counter(reason.split(":")[0] for _, reason in rejected_files(catalog))


def rejected_files(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yields the path and the reason of each rejected file."""
    for unit in catalog.units:
        end = unit.first + len(unit.files)
        if (catalog.verdicts[unit.first : end] == _REJECTED).any():
            yield from ((v.path, v.reason) for v in read_verdicts(unit) if v.verdict == "rejected")


def _key(catalog: Catalog, row: np.intp) -> bytes:
    return catalog.digests[row].astype(">u8").tobytes()


def _settle_identical(catalog: Catalog) -> None:
    """Keeps one of identical files: the first by path. Under two classes none is right, so none is kept."""
    rows = np.flatnonzero(catalog.kept())
    if not len(rows):
        return
    digests = catalog.digests[rows]
    order = np.lexsort((rows, *digests.T))
    rows, digests = rows[order], digests[order]
    starts = np.flatnonzero(np.concatenate(([True], (digests[1:] != digests[:-1]).any(axis=1))))
    sizes = np.diff(np.append(starts, len(rows)))
    labels = catalog.labels[rows].astype(np.int64)
    disagree = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    catalog.originals[rows] = np.repeat(rows[starts], sizes)
    catalog.verdicts[rows[catalog.originals[rows] != rows]] = _DUPLICATE
    catalog.verdicts[rows[np.repeat(disagree, sizes)]] = _CONFLICT
