"""The order of training examples: a pure function of (data, batch size, seed, epoch, step). NumPy only.

A split is divided into lanes: consecutive parts of its records, each of which supplies the same slice of every batch.
So each host reads, and caches, only the lanes of its own slice, and the global batches are the same for any number of
hosts. In each epoch a lane permutes runs of consecutive records, cuts the result into windows of a fixed number of
steps, and shuffles the records of each window. Training can start at any step: it begins within that step's window.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.data.arguments import whole_number

# Increase when the order changes, so that no run resumes in another order. Runs of old versions have no such number.
ORDER_VERSION = 2
# Records read with one request. Longer runs shuffle less well, shorter ones cost more requests.
_MAX_RUN_RECORDS = 16
_RUN_BYTES = 512 * 2**10
# Encoded records shuffled together, over all lanes. Three windows are in memory at a time: one being read, one
# waiting, one being decoded.
WINDOW_BYTES = 64 * 2**20
_MAX_WINDOW_RECORDS = 32768
# More lanes shuffle better and divide among more hosts; each costs some microseconds per window.
_MAX_LANES = 64
_MIN_LANE_RECORDS = 256


class Window(NamedTuple):
    """Consecutive steps whose records are read together.

    Attributes:
        first_step: Number of the first step, counted from the first step of epoch 0.
        positions: int64 [num_steps, batch]: the record of each example, as its position in the split.
    """

    first_step: int
    positions: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class BatchSlice:
    """The part of each global batch that one host reads: the `index`-th of `count` equal parts."""

    index: int = 0
    count: int = 1

    @classmethod
    def make(cls, shard: Any) -> "BatchSlice":
        """Returns the slice for (index, count).

        Raises:
            ConfigError: The pair is invalid.
        """
        if not isinstance(shard, Sequence) or len(shard) != 2 or isinstance(shard, str):
            raise ConfigError(f"shard must be (index, count), got {shard!r}")
        return cls(whole_number("shard index", shard[0]), whole_number("shard count", shard[1], least=1))

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"shard must be (index, count) with 0 <= index < count, got {self.index, self.count}"
            )

    def columns(self, batch_size: int) -> slice:
        """Returns the slice of a global batch.

        Raises:
            ConfigError: `count` does not divide `batch_size`.
        """
        if batch_size % self.count:
            raise ConfigError(
                f"batch_size {batch_size} is not divisible by the {self.count} shards of each batch"
            )
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE_BATCH = BatchSlice()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EpochSampler:
    """Shuffles the examples of each epoch into global batches.

    Attributes:
        num_examples: Number of records of the split, numbered by position in its files. The number of files does not
            matter.
        batch_size: Global batch size.
        seed: Any integer from 0 on.
        run_length: Records per run.
        window_steps: Steps per window.
    """

    num_examples: int
    batch_size: int
    seed: int
    run_length: int
    window_steps: int

    @classmethod
    def make(
        cls,
        num_examples: int,
        *,
        num_bytes: int,
        batch_size: int,
        seed: int,
        window_bytes: int = WINDOW_BYTES,
    ) -> "EpochSampler":
        """Returns the sampler of a split of `num_bytes`, the total size of its files.

        Raises:
            ConfigError: The batch size is not positive, or the seed is negative.
            DatasetError: The split has fewer examples than one batch.
        """
        batch_size = whole_number("batch_size", batch_size, least=1)
        seed = whole_number("seed", seed)
        if num_examples < batch_size:
            raise DatasetError(
                f"an epoch has 0 steps: batch_size {batch_size} is larger than the split of {num_examples} examples"
            )
        record_bytes = max(1, num_bytes // num_examples)
        window_records = min(window_bytes // record_bytes, _MAX_WINDOW_RECORDS)
        return cls(
            num_examples=num_examples,
            batch_size=batch_size,
            seed=seed,
            run_length=min(_MAX_RUN_RECORDS, max(1, _RUN_BYTES // record_bytes)),
            window_steps=max(1, window_records // batch_size),
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of complete batches per epoch."""
        return self.num_examples // self.batch_size

    @property
    def num_lanes(self) -> int:
        """Number of lanes: the largest divisor of the batch size that leaves each lane a few hundred records."""
        max_lanes = min(_MAX_LANES, max(1, self.num_examples // _MIN_LANE_RECORDS))
        return max(lanes for lanes in range(1, max_lanes + 1) if self.batch_size % lanes == 0)

    def windows(self, *, start_step: int = 0, part: BatchSlice = WHOLE_BATCH) -> Iterator[Window]:
        """Yields the examples of `part` from step `start_step` on, over endless epochs."""
        epoch, step = divmod(start_step, self.steps_per_epoch)
        while True:
            yield from self._epoch_windows(epoch, step, part)
            epoch, step = epoch + 1, 0

    def positions(self, step: int, *, part: BatchSlice = WHOLE_BATCH) -> np.ndarray:
        """Returns the examples int64 [batch] of `part` of one step."""
        return next(self.windows(start_step=step, part=part)).positions[0]

    def record_range(self, part: BatchSlice) -> tuple[int, int]:
        """Returns the first position that `part` may read, and the position after its last one."""
        lanes = self._lanes(part)
        return self._lane_start(lanes.start), self._lane_start(lanes.stop)

    def _lane_start(self, lane: int) -> int:
        return self.num_examples * lane // self.num_lanes

    def _lanes(self, part: BatchSlice) -> range:
        columns = part.columns(self.batch_size)
        width = self.batch_size // self.num_lanes
        return range(columns.start // width, -(-columns.stop // width))

    def _epoch_windows(self, epoch: int, step: int, part: BatchSlice) -> Iterator[Window]:
        steps = self.steps_per_epoch
        width = self.batch_size // self.num_lanes
        columns, lanes = part.columns(self.batch_size), self._lanes(part)
        columns = slice(columns.start - lanes.start * width, columns.stop - lanes.start * width)
        runs = [self._permuted_runs(lane, epoch) for lane in lanes]
        for number in range(step // self.window_steps, -(-steps // self.window_steps)):
            start = number * self.window_steps
            end = min(start + self.window_steps, steps)
            drawn = [
                self._shuffled(lane_runs.records(start * width, end * width), lane, epoch, number)
                for lane, lane_runs in zip(lanes, runs, strict=True)
            ]
            batches = np.concatenate([column.reshape(end - start, width) for column in drawn], axis=1)
            done = max(0, step - start)
            yield Window(epoch * steps + start + done, batches[done:, columns])

    def _permuted_runs(self, lane: int, epoch: int) -> "PermutedRuns":
        runs = LaneRuns(self._lane_start(lane), self._lane_start(lane + 1), self.run_length)
        generator = np.random.default_rng([self.seed, epoch, lane, 0])
        return PermutedRuns.make(runs, generator.permutation(len(runs)))

    def _shuffled(self, positions: np.ndarray, lane: int, epoch: int, window: int) -> np.ndarray:
        # Always four numbers, with 0 last for the runs: NumPy ignores trailing zeros.
        return np.random.default_rng([self.seed, epoch, lane, window + 1]).permutation(positions)


@dataclasses.dataclass(frozen=True, slots=True)
class LaneRuns:
    """The runs of a lane in file order, computed instead of stored. A run may extend into the next file.

    Attributes:
        start: First position of the lane.
        end: The position after its last.
        length: Records per run; the last one may be shorter.
    """

    start: int
    end: int
    length: int

    def __len__(self) -> int:
        return (self.end - self.start + self.length - 1) // self.length

    def bounds(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first position and the number of records of each of these runs."""
        starts = self.start + numbers.astype(np.int64) * self.length
        return starts, np.minimum(self.length, self.end - starts)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PermutedRuns:
    """The records of a lane in the order of its permuted runs.

    Attributes:
        runs: In file order.
        order: [num_runs]: the run number at each place.
        ends: [num_runs]: cumulative number of records up to the end of each place.
    """

    runs: LaneRuns
    order: np.ndarray
    ends: np.ndarray

    @classmethod
    def make(cls, runs: LaneRuns, order: np.ndarray) -> "PermutedRuns":
        """Returns `runs` in this order."""
        _, counts = runs.bounds(order)
        ends = np.cumsum(counts)
        # An epoch of 100 million records has 6 million runs: a smaller dtype halves the memory.
        dtype = np.int32 if ends[-1] < 2**31 else np.int64
        return cls(runs, order.astype(dtype), ends.astype(dtype))

    def records(self, start: int, end: int) -> np.ndarray:
        """Returns the positions int64 [end - start] of the records at these places of the permuted lane."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, end, side="left")) + 1
        starts, counts = self.runs.bounds(self.order[first:last])
        ends = np.cumsum(counts)
        positions = np.repeat(starts - ends + counts, counts) + np.arange(ends[-1])
        skipped = start - (int(self.ends[first]) - int(counts[0]))
        return positions[skipped : skipped + end - start]
