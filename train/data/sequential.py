"""The order of evaluation: each example once, in file order, sharded among hosts batch by batch."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from shardstream.train.data.arguments import whole_number
from shardstream.train.data.sampling import WHOLE_BATCH, BatchSlice, Window
from shardstream.train.data.split_index import SplitIndex

_WINDOW_BYTES = 16 * 2**20
_MAX_WINDOW_RECORDS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SequentialSampler:
    """The global batches of one pass, restricted to `part`; the last one may be smaller.

    Attributes:
        start: Number of the first example.
        end: Number of the example after the last one.
        batch_size: Global batch size.
        part: The slice of each batch.
        window_steps: Steps per window.
        position_of: Maps example numbers to positions in the split, int64.
    """

    start: int
    end: int
    batch_size: int
    part: BatchSlice
    window_steps: int
    position_of: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def make(
        cls,
        index: SplitIndex,
        *,
        batch_size: int,
        start: int = 0,
        end: int | None = None,
        part: BatchSlice = WHOLE_BATCH,
        position_of: Callable[[np.ndarray], np.ndarray] = lambda numbers: numbers,
    ) -> "SequentialSampler":
        """Returns the sampler of the examples from `start` to `end` of a split.

        Raises:
            ConfigError: The batch size is not positive, or not divisible by the number of hosts.
        """
        batch_size = whole_number("batch_size", batch_size, least=1)
        part.columns(batch_size)
        record_bytes = max(1, index.num_bytes // index.num_examples)
        window_records = min(_WINDOW_BYTES // record_bytes, _MAX_WINDOW_RECORDS)
        return cls(
            start=start,
            end=index.num_examples if end is None else end,
            batch_size=batch_size,
            part=part,
            window_steps=max(1, window_records // (batch_size // part.count)),
            position_of=position_of,
        )

    @property
    def num_steps(self) -> int:
        """Number of batches, the same for every part."""
        return -(-(self.end - self.start) // self.batch_size)

    @property
    def num_examples(self) -> int:
        """Number of examples of `part`."""
        columns = self.part.columns(self.batch_size)
        complete, rest = divmod(self.end - self.start, self.batch_size)
        return complete * (columns.stop - columns.start) + len(range(rest)[columns])

    def windows(self, start_step: int = 0) -> Iterator[Window]:
        """Yields the examples from step `start_step` on; a smaller last batch is a window of its own."""
        columns = self.part.columns(self.batch_size)
        complete = (self.end - self.start) // self.batch_size
        for step in range(start_step, complete, self.window_steps):
            steps = np.arange(step, min(step + self.window_steps, complete))
            numbers = (
                self.start + steps[:, np.newaxis] * self.batch_size + np.arange(self.batch_size)[columns]
            )
            yield Window(step, self.position_of(numbers))
        rest = np.arange(self.start + max(complete, start_step) * self.batch_size, self.end)[columns]
        if len(rest):
            yield Window(complete, self.position_of(rest[np.newaxis]))
