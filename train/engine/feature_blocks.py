"""The features of a split in blocks of consecutive images, each cached as soon as it is complete.

A pass that was killed is continued: only the missing blocks are computed.
"""

import contextlib
import io
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.train.engine.feature_cache import FeatureCache
from shardstream.train.engine.features import (
    BATCH_SIZE,
    Batches,
    Extractor,
    Features,
    collect_features,
    extract_in_turn,
)

# Images per block. A kill costs at most the block in progress: less than a minute on two cores, seconds on a GPU. A
# million images are 245 files of 23 MB. A multiple of `BATCH_SIZE`, so that only the last batch is not full.
BLOCK_SIZE = 4096


class SplitFeatures:
    """The features of a split, of which some blocks may be missing.

    Attributes:
        num_examples: Number of images of the split.
        missing: Numbers of the blocks that are not there yet, ascending.
        num_done: Number of images whose features are there, those of the block in progress included.
        num_kept: Number of images whose features are on disk.
    """

    def __init__(self, identity: Mapping[str, Any], *, num_examples: int, cache: FeatureCache) -> None:
        """Reads the blocks that are cached.

        Args:
            identity: What determines the features, see `features_identity`.
            num_examples: Number of images of the split.
            cache: Keeps the blocks.
        """
        self._identity = identity
        self._cache = cache
        self._features: Features | None = None
        self.num_examples = num_examples
        self.num_done = self.num_kept = 0
        self.missing = [block for block in range(-(-num_examples // BLOCK_SIZE)) if not self._load(block)]

    @property
    def features(self) -> Features:
        """The features of all images, in file order; no block may be missing."""
        if self._features is None or self.missing:
            raise ValueError(f"the blocks {self.missing} are missing")
        return self._features

    def compute(
        self,
        batches_of: Callable[[np.ndarray], Batches],
        extractors: Sequence[Extractor],
        *,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Computes all missing blocks; see `computed`."""
        if self.missing:
            for _ in self.computed(list(self.missing), batches_of, extractors, after_batch=after_batch):
                pass

    def computed(
        self,
        blocks: Sequence[int],
        batches_of: Callable[[np.ndarray], Batches],
        extractors: Sequence[Extractor],
        *,
        after_batch: Callable[[], None] = lambda: None,
    ) -> Generator[int]:
        """Yields the numbers of missing blocks as soon as they are computed.

        Args:
            blocks: The numbers of the blocks, ascending; at least one.
            batches_of: Returns the images of the given numbers, int64 and ascending, in batches of `BATCH_SIZE`.
            extractors: One for each device, see `extract_in_turn`.
            after_batch: An exception in it ends the pass; the blocks that are complete are kept.

        Raises:
            DatasetError: A record is missing or corrupt, or features are not finite.
        """

        def count(num_images: int) -> None:
            self.num_done += num_images
            after_batch()

        # One pipeline for all blocks: no block waits for a new one to start.
        numbers = np.concatenate([self._numbers(block) for block in blocks])
        with contextlib.closing(extract_in_turn(batches_of(numbers), extractors)) as extracted:
            for block in blocks:
                num_examples = len(self._numbers(block))
                batches = itertools.islice(extracted, -(-num_examples // BATCH_SIZE))
                found = collect_features(batches, num_examples=num_examples, after_batch=count)
                self._keep(block, found)
                yield block

    def to_bytes(self, block: int) -> bytes:
        """Returns a block that is not missing, for other workers."""
        if self._features is None or block in self.missing:
            raise ValueError(f"block {block} is missing")
        start, file = block * BLOCK_SIZE, io.BytesIO()
        np.savez(file, **self._features.part(start, start + BLOCK_SIZE).arrays())
        return file.getvalue()

    def receive(self, block: int, content: bytes) -> None:
        """Adds a missing block that another worker computed, from its `to_bytes`."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = Features.from_arrays(file)
        self.num_done += len(found.labels)
        self._keep(block, found)

    def _keep(self, block: int, found: Features) -> None:
        if self._cache.save(self._identity_of(block), found):
            self.num_kept += len(found.labels)
        self._put(block, found)
        self.missing.remove(block)

    def _numbers(self, block: int) -> np.ndarray:
        return np.arange(block * BLOCK_SIZE, min((block + 1) * BLOCK_SIZE, self.num_examples))

    def _identity_of(self, block: int) -> dict[str, Any]:
        return {**self._identity, "block": block, "block_size": BLOCK_SIZE}

    def _load(self, block: int) -> bool:
        num_examples = len(self._numbers(block))
        found = self._cache.load(self._identity_of(block), num_examples=num_examples)
        if found is None:
            return False
        self._put(block, found)
        self.num_done += num_examples
        self.num_kept += num_examples
        return True

    def _put(self, block: int, found: Features) -> None:
        """Copies a block to its place: joining all of them at the end would take twice the memory."""
        if self._features is None:
            self._features = Features.empty(self.num_examples, like=found)
        widths = [features.values.shape[1] for features in (self._features, found)]
        if widths[0] != widths[1]:
            raise DatasetError(
                f"the features of some images are {widths[0]:,} numbers, of others {widths[1]:,}: a file in the "
                "folder of caches was changed; remove its files *.features.npz"
            )
        self._features.put(block * BLOCK_SIZE, found)
