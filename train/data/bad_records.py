"""Records that a training leaves out, because they cannot be read and the user said that it may go on without them.

They are found by a look at all records before the training begins. So the order of the others is a pure function of
(seed, epoch, bad records), and a run that is resumed has the same.
"""

import csv
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import LimitError
from shardstream.ingest.dataset.metadata import DatasetInfo, SplitInfo
from shardstream.ingest.dataset.records import RecordError, block_checksum
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.order import Blocks
from shardstream.train.data.record_source import Place, find_origins, place_of
from shardstream.train.data.records import decode_record
from shardstream.train.data.shard_reader import find_records, read_block

logger = logging.getLogger(__name__)

_SHOWN = 10
# A spreadsheet takes a cell that begins so for a formula, and formulas can call programs.
_FORMULA_STARTS = ("=", "+", "-", "@")


@dataclasses.dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be read: where it is, what is wrong with it, and the file that it was made of, if known."""

    place: Place
    position: int
    what: str
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DamagedSplit(SplitInfo):
    """A split without some of its records.

    Attributes:
        bad: Their positions in the whole split, ascending.
    """

    bad: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        """The number of records that are left."""
        return sum(shard.num_examples for shard in self.shards) - len(self.bad)

    @property
    def damaged_shards(self) -> frozenset[str]:
        """The names of the files that have a bad record."""
        return frozenset(self.shards[place_of(self, position).shard].filename for position in self.bad)


def find_bad_records(
    info: DatasetInfo, split_names: Sequence[str], *, image_size: int, limit: int
) -> list[BadRecord]:
    """Returns all records of the splits that cannot be read or decoded, after a look at each.

    Raises:
        LimitError: There are more than `limit`.
    """
    logger.info("looks at every record, as --max-bad-records is %d", limit)
    found: list[tuple[SplitInfo, int, str]] = []
    for split in map(info.split, split_names):
        for position, what in _flaws(info, split, image_size):
            found.append((split, position, what))
            if len(found) > limit:
                break
    places = [place_of(split, position) for split, position, _ in found]
    origins = find_origins(info, places)
    bad = [
        BadRecord(place, position, what, origins[place].path if place in origins else "")
        for place, (_, position, what) in zip(places, found, strict=True)
    ]
    if len(bad) > limit:
        first = _described(info, bad[0])
        raise LimitError(
            f"{info.data_dir}: more than {limit} bad records (--max-bad-records), the first is {first}; {info.remedy}"
        )
    for one in bad[:_SHOWN]:
        logger.warning("left out: %s", _described(info, one))
    if len(bad) > _SHOWN:
        logger.warning("left out: %d more, all named in bad_records.csv of the run", len(bad) - _SHOWN)
    return bad


def without_bad_records(info: DatasetInfo, bad: Mapping[str, Sequence[int]]) -> DatasetInfo:
    """Returns the dataset without the records at these positions of its splits; its fingerprint is another."""
    splits = dict(info.splits)
    for name, positions in bad.items():
        if positions:
            splits[name] = _damaged(info.split(name), tuple(positions))
    return dataclasses.replace(info, splits=splits)


def good_blocks(info: DatasetInfo, split: SplitInfo, blocks: Blocks) -> Blocks:
    """Returns `blocks` of a split without its bad records: what is left of a block are runs of records.

    The positions of the records stay those in the whole split.
    """
    if not isinstance(split, DamagedSplit):
        return blocks
    bad = np.asarray(split.bad, np.int64)
    affected = np.unique(np.searchsorted(blocks.firsts, bad, side="right") - 1)
    parts: list[Blocks] = []
    done = 0
    for row in affected.tolist():
        parts += [blocks[done:row], _runs(info, split, blocks, row, set(split.bad))]
        done = row + 1
    return Blocks.concatenated([*parts, blocks[done:]])


def write_bad_records(path: Path, info: DatasetInfo, bad: Sequence[BadRecord]) -> None:
    """Writes a row for each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "shard", "record", "source_path", "what"])
        for one in bad:
            filename = info.split(one.place.split).shards[one.place.shard].filename
            row = [one.place.split, filename, one.place.number, one.source, one.what]
            writer.writerow([f"'{cell}" if str(cell).startswith(_FORMULA_STARTS) else cell for cell in row])


def _flaws(info: DatasetInfo, split: SplitInfo, image_size: int) -> Iterator[tuple[int, str]]:
    blocks = Blocks.of(split)
    decoder = PictureDecoder(stored=info.image, image_size=image_size, resize=info.image.resize)

    def check(row: int) -> list[tuple[int, str]]:
        first = int(blocks.firsts[row])
        out = np.empty((image_size, image_size, 3), np.uint8)
        flaws = []
        for number, record in enumerate(read_block(info.data_dir, split, blocks, row)):
            try:
                if isinstance(record, str):
                    raise RecordError(record)
                decode_record(info, decoder, record, out)
            except RecordError as error:
                flaws.append((first + number, str(error)))
        return flaws

    at_once = 16 * usable_cores()  # So that little is read in vain when there are too many.
    with ThreadPoolExecutor(usable_cores()) as threads:
        for start in range(0, len(blocks), at_once):
            for flaws in threads.map(check, range(start, min(start + at_once, len(blocks)))):
                yield from flaws


def _runs(info: DatasetInfo, split: SplitInfo, blocks: Blocks, row: int, bad: set[int]) -> Blocks:
    """Returns the runs of good records of one block."""
    first, count, offset = int(blocks.firsts[row]), int(blocks.counts[row]), int(blocks.offsets[row])
    good = [first + number not in bad for number in range(count)]
    if not any(good):
        return blocks[:0]
    found = find_records(
        info.data_dir / split.shards[blocks.shards[row]].filename,
        offset,
        int(blocks.lengths[row]),
        count,
        int(blocks.checksums[row]),
    )
    starts = [0, *(end for end, _ in found)]
    rows = []
    number = 0
    while number < count:
        end = number
        while end < count and good[end]:
            end += 1
        if end > number:
            begin = starts[number]
            # They were looked at when the bad ones were found.
            checksum = block_checksum(checksum for _, checksum in found[number:end])
            rows.append(
                (
                    blocks.shards[row],
                    offset + begin,
                    end - number,
                    first + number,
                    starts[end] - begin,
                    checksum,
                )
            )
        number = end + 1
    return Blocks(*(np.asarray(column, np.int64) for column in zip(*rows, strict=True)))


def _damaged(split: SplitInfo, bad: tuple[int, ...]) -> DamagedSplit:
    changed: dict[int, list[int]] = {}
    for position in bad:
        place = place_of(split, position)
        changed.setdefault(place.shard, []).append(place.number)
    shards = tuple(
        dataclasses.replace(shard, sha256=hashlib.sha256(f"{shard.sha256} {changed[i]}".encode()).hexdigest())
        if i in changed
        else shard
        for i, shard in enumerate(split.shards)
    )
    return DamagedSplit(name=split.name, shards=shards, class_counts=split.class_counts, bad=bad)


def _described(info: DatasetInfo, bad: BadRecord) -> str:
    filename = info.split(bad.place.split).shards[bad.place.shard].filename
    source = f" (of {bad.source})" if bad.source else ""
    return f"{filename}: record {bad.place.number}{source} {bad.what}"
