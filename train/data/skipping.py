"""Corrupt records that training skips, up to a limit set by the user.

All records are read once before the first batch to find them, so the order is a pure function of the data and the list
of corrupt records: each is replaced by the next intact record of its block, and no other record moves.
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import LimitError
from shardstream.train.data.corruption import RecordChecker
from shardstream.train.data.pipeline import ExamplePlan, decode_examples, pipeline_options, without_autograph
from shardstream.train.data.sequential import SequentialSampler
from shardstream.train.data.split_index import SplitIndex

logger = logging.getLogger(__name__)

# A block is 16 consecutive records of a file.
_BLOCK_RECORDS = 16
_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class BadRecords:
    """The corrupt records of a split.

    Attributes:
        positions: int64 [num_bad], ascending.
        replacements: int64 [num_bad]: the position of the intact record that replaces each.
        reasons: What is wrong with each.
    """

    positions: np.ndarray
    replacements: np.ndarray
    reasons: tuple[str, ...] = ()

    @classmethod
    def none(cls) -> "BadRecords":
        """Returns an empty list of corrupt records."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    @classmethod
    def of(cls, index: SplitIndex, positions: np.ndarray, reasons: tuple[str, ...] = ()) -> "BadRecords":
        """Returns the corrupt records at `positions`, ascending, with their replacements.

        Raises:
            LimitError: No record of the split is intact.
        """
        if len(positions) == index.num_examples:
            raise LimitError(
                f"{index.data_dir}: split {index.name!r}: every record is corrupt; {index.repair_hint}"
            )
        bad = set(positions.tolist())
        replacements = [_replacement(index, position, bad) for position in positions.tolist()]
        return cls(positions, np.asarray(replacements, np.int64), reasons)

    def __len__(self) -> int:
        return len(self.positions)

    def replace(self, positions: np.ndarray) -> np.ndarray:
        """Returns `positions` with each corrupt record replaced."""
        if not len(self):
            return positions
        rows = np.minimum(np.searchsorted(self.positions, positions), len(self) - 1)
        return np.where(self.positions[rows] == positions, self.replacements[rows], positions)

    def intact(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the positions of intact records, by their numbers among the intact records in file order."""
        before = self.positions - np.arange(len(self))
        return numbers + np.searchsorted(before, numbers, side="right")

    def check_limit(self, checker: RecordChecker, limit: int) -> None:
        """Raises LimitError if there are more than `limit`."""
        _check_limit(checker, dict(zip(self.positions.tolist(), self.reasons, strict=True)), limit)


def _check_limit(checker: RecordChecker, reasons: Mapping[int, str], limit: int) -> None:
    if len(reasons) > limit:
        first = min(reasons)
        raise LimitError(
            f"more than {limit} corrupt records, the first is {checker.name_record(first, reasons[first])}"
        )


def _replacement(index: SplitIndex, position: int, bad: set[int]) -> int:
    """Returns the next intact record of the block, wrapping around at its end, else the next one of the split."""
    shard = int(index.shards_of(np.asarray([position]))[0])
    first, end = index.first_positions[shard : shard + 2].tolist()
    start = position - (position - first) % _BLOCK_RECORDS
    block = range(start, min(start + _BLOCK_RECORDS, end))
    nearby = [*range(position + 1, block.stop), *range(block.start, position)]
    everywhere = ((position + step) % index.num_examples for step in range(index.num_examples))
    return next(it for it in itertools.chain(nearby, everywhere) if it not in bad)


def find_bad_records(index: SplitIndex, checker: RecordChecker, *, limit: int) -> BadRecords:
    """Returns the corrupt records of a split, after reading and decoding every record.

    Raises:
        LimitError: There are more than `limit`.
    """
    logger.info(
        "%s: reads every record of split %r, as up to %d may be skipped", index.data_dir, index.name, limit
    )
    found: dict[int, str] = {}
    for position in _missing(index, checker):
        # If one record of a window cannot be read, all of its records are missing: most of them are intact.
        if reason := checker.record_error(position):
            found[position] = reason
        _check_limit(checker, found, limit)
    for position in list(found)[:_SHOWN]:
        logger.warning("skipped: %s", checker.name_record(position, found[position]))
    if len(found) > _SHOWN:
        logger.warning("skipped: %d more", len(found) - _SHOWN)
    return BadRecords.of(index, np.asarray(list(found), np.int64), tuple(found.values()))


@without_autograph
def _number(number: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
    return number


def _missing(index: SplitIndex, checker: RecordChecker) -> Iterator[int]:
    """Yields the positions, ascending, of the records that a pipeline over the complete split does not deliver."""
    # Small windows: if one record cannot be read, all records of its window are inspected in Python.
    sampler = dataclasses.replace(SequentialSampler.make(index, batch_size=_BLOCK_RECORDS), window_steps=2)
    plan = ExamplePlan(windows=sampler.windows, batch_size=_BLOCK_RECORDS)
    examples = decode_examples(index, plan, checker).map(_number)
    expected = 0
    for numbers in examples.batch(_BLOCK_RECORDS).with_options(pipeline_options()):
        for number in numbers.numpy().tolist():
            if number >= 0:  # It was read.
                yield from range(expected, number)
                expected = number + 1
    yield from range(expected, index.num_examples)
