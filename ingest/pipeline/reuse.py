"""Reuses what the previous dataset knows about the source files."""

import array
import collections
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import first_rows, open_index, scan_shards
from shardstream.ingest.dataset.manifest import is_of_old_layout, read_rows
from shardstream.ingest.dataset.metadata import FORMAT_VERSION, DatasetInfo
from shardstream.ingest.dataset.records import FRAMING_BYTES
from shardstream.ingest.dataset.source_state import FileState, check_source_states, read_source_states
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import NO_SPLIT, Listing, shown
from shardstream.ingest.pipeline.results import CONFLICT, OK, REJECTED, REPAIRED, VERDICTS

logger = logging.getLogger(__name__)

_MAX_GONE_PATHS = 10
_END: tuple[int, None] = (0, None)
_JUDGED = {"ok": OK, "repaired": REPAIRED, "rejected": REJECTED}


@dataclasses.dataclass(slots=True)
class PreviousState:
    """What the previous dataset knows about the files of a catalog.

    Attributes:
        found: Which files it knows, bool [files].
        same: Which files have the same path and state (size, times, inode), and were read, bool [files].
        labels: The previous class of each file, as a current label; -1 if unknown or removed, int32 [files].
        verdicts: The previous verdict of each file, an index into VERDICTS, uint8 [files].
        reasons: The reasons of files that were unreadable or in conflict, by row: they may change
            while the file does not.
        num_before: The number of source files of the previous dataset.
        gone_labels: The class of each removed file, as a label of the previous dataset.
        gone_digests: The SHA-256 of each removed file, 32 bytes each, concatenated.
        gone_paths: The paths of the first few removed files.
        is_moved: Whether the source gives a known file another class or split than before.
        has_other_size: Whether a known file has another size than before.
        has_other_state: Whether a known file has another state than before, or an unknown one.
        num_touched: The number of known files with another state than before.
        is_of_old_layout: Whether the previous manifest has other columns than a new one.
    """

    found: np.ndarray
    same: np.ndarray
    labels: np.ndarray
    verdicts: np.ndarray
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    num_before: int = 0
    gone_labels: "array.array[int]" = dataclasses.field(default_factory=lambda: array.array("I"))
    gone_digests: bytearray = dataclasses.field(default_factory=bytearray)
    gone_paths: list[str] = dataclasses.field(default_factory=list)
    is_moved: bool = False
    has_other_size: bool = False
    has_other_state: bool = False
    num_touched: int = 0
    is_of_old_layout: bool = False

    @classmethod
    def of_nothing(cls, num_files: int) -> "PreviousState":
        """Returns the state in which no file is known."""
        found, same = np.zeros(num_files, bool), np.zeros(num_files, bool)
        return cls(found, same, np.full(num_files, -1, np.int32), np.full(num_files, REJECTED, np.uint8))

    @property
    def num_found(self) -> int:
        """The number of files that still exist."""
        return self.num_before - len(self.gone_labels)


def load_previous(catalog: Catalog, old: DatasetInfo) -> PreviousState:
    """Fills the rows of `catalog` whose paths are in the manifest of `old` from that manifest.

    A file that was a duplicate or a conflict has no record there: it is treated as accepted, with a record of 0 bytes.
    Logs why no file is known to be unchanged if the states of the files at that time are not known.

    Raises:
        DatasetError: The manifest or a shard of `old` is missing or corrupt.
    """
    state = PreviousState.of_nothing(len(catalog.listing))
    state.is_of_old_layout = is_of_old_layout(old)
    labels_before = {name: label for label, name in enumerate(old.class_names)}
    labels_now = {name: label for label, name in enumerate(catalog.listing.class_names)}
    shard_numbers = {
        (split.name, number): len(catalog.sources) + i
        for i, (split, number) in enumerate(
            (split, number) for split in old.splits.values() for number in range(len(split.shards))
        )
    }
    catalog.sources += [str(old.data_dir / filename) for filename in old.shards]
    for row, before in _matches(catalog.listing, _rows(old)):
        state.num_before += 1
        if row is None:
            _note_gone(state, before, labels_before[before["class_name"]])
            continue
        state.is_moved = state.is_moved or _is_moved(catalog.listing, row, before)
        file_state = catalog.listing.state(row)
        is_same = file_state == before["state"]
        state.found[row] = True
        state.has_other_size = state.has_other_size or file_state.size_bytes != before["size_bytes"]
        state.has_other_state = state.has_other_state or not is_same
        state.num_touched += before["state"] is not None and not is_same
        state.labels[row] = labels_now.get(before["class_name"], -1)
        state.verdicts[row] = VERDICTS.index(before["verdict"])
        if before["sha256"] is None or before["verdict"] == VERDICTS[CONFLICT]:
            state.reasons[row] = before["reason"]
        if before["sha256"] is None:
            continue
        state.same[row] = is_same
        catalog.digests[row] = np.frombuffer(bytes.fromhex(before["sha256"]), ">u8")
        catalog.judged[row] = _JUDGED.get(before["verdict"], OK)
        if before["verdict"] in _JUDGED:
            catalog.reason_numbers[row] = catalog.reason_number(before["reason"])
        catalog.heights[row] = before["source_height"] or 0
        catalog.widths[row] = before["source_width"] or 0
        if before["perceptual_hash"] is not None:
            catalog.has_hash[row], catalog.hashes[row] = True, before["perceptual_hash"]
        if before["split"] is not None:
            catalog.source_numbers[row] = shard_numbers[before["split"], before["shard"]]
            catalog.positions[row] = before["position"]
            catalog.record_labels[row] = labels_before[before["class_name"]]
            catalog.lengths[row] = 1  # Has a record; its location is filled in from the index.
    _find_records(catalog, old)
    return state


def _note_gone(state: PreviousState, before: dict, label: int) -> None:
    state.gone_labels.append(label)
    state.gone_digests += bytes.fromhex(before["sha256"] or "") or bytes(32)
    if len(state.gone_paths) < _MAX_GONE_PATHS:
        state.gone_paths.append(before["path"])


def _is_moved(listing: Listing, row: int, before: dict) -> bool:
    """Whether the table of labels changed the class or split of a file. A folder cannot: it is part of the path."""
    if before["class_name"] != listing.class_names[listing.labels[row]]:
        return True
    split = listing.given_splits[row] if len(listing.given_splits) else NO_SPLIT
    return split != NO_SPLIT and before["split"] not in (None, SPLIT_NAMES[split])


def _rows(old: DatasetInfo) -> Iterator[dict]:
    """Yields the rows of the manifest, each with the state of its file, None if unknown."""
    states = _states(old)
    for rows in read_rows(old):
        for before in rows.to_pylist():
            yield before | {"state": next(states, None)}


def _states(old: DatasetInfo) -> Iterator[FileState]:
    try:
        check_source_states(old)
    except DatasetError as error:
        logger.warning("%s", error)
        return iter(())
    return read_source_states(old)


def _matches(listing: Listing, before: Iterator[dict]) -> Iterator[tuple[int | None, dict]]:
    """Yields each row of the previous manifest, with the row of the listing that has its path.

    Both are sorted by the bytes of their paths, so a single merge pass is enough, except for paths with a backslash:
    the manifest escapes bytes that are not UTF-8 with it, which changes the order and may make two paths equal.
    """
    spelled: dict[str, list[int]] = {}
    spelt_before: list[dict] = []
    paths = _plain_paths(listing, spelled)
    row, path = next(paths, _END)
    for old in before:
        if "\\" in old["path"]:
            spelt_before.append(old)
            continue
        old_path = old["path"].encode()
        while path is not None and path < old_path:
            row, path = next(paths, _END)
        yield (row if path == old_path else None), old
    for _ in paths:
        pass
    times = collections.Counter(old["path"] for old in spelt_before)
    for old in spelt_before:
        rows = spelled.get(old["path"], [])
        yield (rows[0] if len(rows) == times[old["path"]] == 1 else None), old


def _plain_paths(listing: Listing, spelled: dict[str, list[int]]) -> Iterator[tuple[int, bytes]]:
    """Yields rows and paths without a backslash; collects the others in `spelled`."""
    for row in range(len(listing)):
        path = shown(listing.path(row))
        if "\\" in path:
            spelled.setdefault(path, []).append(row)
        else:
            yield row, path.encode()


def _find_records(catalog: Catalog, old: DatasetInfo) -> None:
    """Sets offset and length of each reused record, by its position in its shard."""
    rows = np.flatnonzero(catalog.lengths)
    order = rows[np.argsort(catalog.source_numbers[rows], kind="stable")]
    starts = np.searchsorted(catalog.source_numbers[order], np.arange(len(catalog.sources) + 1))
    numbers = {Path(source).name: number for number, source in enumerate(catalog.sources)}
    # Format 3 has no index: its shards are scanned for the offsets.
    index = open_index(old) if old.format_version == FORMAT_VERSION else scan_shards(old, old.shards.values())
    firsts = first_rows(old)
    for filename, shard in old.shards.items():
        number = numbers[filename]
        rows = order[starts[number] : starts[number + 1]]
        _check_size(old.data_dir / filename, shard.num_bytes)
        offsets = index["offset"][firsts[filename] :][: shard.num_examples]
        lengths = np.diff(offsets, append=shard.num_bytes)
        if offsets[0] or lengths.min() < FRAMING_BYTES:
            raise DatasetError(
                f"{old.data_dir / INDEX}: the offsets of {filename} do not rise from 0; "
                "repair it with `shardstream-ingest repair` first"
            )
        catalog.offsets[rows] = offsets[catalog.positions[rows]]
        catalog.lengths[rows] = lengths[catalog.positions[rows]]


def _check_size(path: Path, num_bytes: int) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DatasetError(
            f"{path}: {error.strerror}; repair it with `shardstream-ingest repair` first"
        ) from None
    if size != num_bytes:
        raise DatasetError(
            f"{path}: {size:,} bytes, metadata says {num_bytes:,}; repair it with `shardstream-ingest repair` first"
        )
