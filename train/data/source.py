"""One split of a dataset, ready to be read: its index, its decoder, and the corrupt records that are skipped."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.data.cache import CacheRequest
from shardstream.train.data.corruption import RecordChecker
from shardstream.train.data.pipeline import ExamplePlan, finished, make_batches
from shardstream.train.data.pixels import VERSION
from shardstream.train.data.sequential import SequentialSampler
from shardstream.train.data.skipping import BadRecords
from shardstream.train.data.split_index import SplitIndex

# Window when reading a sample: enough to read ahead, and little memory.
_CHOSEN_RECORDS = 256


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SplitSource:
    """A split with everything that determines the pixels of its examples.

    Attributes:
        info: The dataset.
        checker: Checker of its records, with index and decoder.
        bad: The corrupt records that are skipped.
    """

    info: DatasetInfo
    checker: RecordChecker
    bad: BadRecords

    @property
    def index(self) -> SplitIndex:
        """Index of the records."""
        return self.checker.index

    def cache_request(self, sampler: SequentialSampler, content: Mapping[str, object]) -> CacheRequest:
        """Returns the request to cache the images of `sampler`; `content` identifies them."""
        size = self.checker.decoder.image_size
        identity: dict[str, object] = {
            "fingerprint": self.info.fingerprint,
            "split": self.index.name,
            "image_size": size,
            "decoder": f"{VERSION}, tensorflow {tf.__version__}",
        }
        return CacheRequest(
            identity={**identity, **content},
            num_images=sampler.num_examples,
            image_size=size,
            batches=lambda: self._batches(sampler),
        )

    def chosen(self, positions: np.ndarray, *, batch_size: int) -> tf.data.Dataset:
        """Returns the examples at `positions`, int64, in any order; the last batch may be smaller."""
        sampler = self._sampler(positions, batch_size)
        return self._batches(dataclasses.replace(sampler, window_steps=max(1, _CHOSEN_RECORDS // batch_size)))

    def ascending(self, positions: np.ndarray, *, batch_size: int) -> tf.data.Dataset:
        """Returns the examples at `positions`, int64, ascending; the last batch may be smaller.

        Reads as far ahead as evaluation does: most of what lies between two positions is read anyway.
        """
        return self._batches(self._sampler(positions, batch_size))

    def _sampler(self, positions: np.ndarray, batch_size: int) -> SequentialSampler:
        return SequentialSampler.make(
            self.index,
            batch_size=batch_size,
            end=len(positions),
            position_of=lambda numbers: positions[numbers],
        )

    def _batches(self, sampler: SequentialSampler) -> tf.data.Dataset:
        plan = ExamplePlan(
            windows=sampler.windows,
            batch_size=sampler.batch_size // sampler.part.count,
            num_examples=sampler.num_examples,
            num_steps=sampler.num_steps,
        )
        return finished(make_batches(self.index, plan, self.checker))
