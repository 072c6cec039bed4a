"""Blocks of features that several workers compute together: each its own, and all are sent to the chief."""

import contextlib
import json
from collections.abc import Callable, Sequence

import numpy as np

from shardstream.train.distributed.workers import Workers
from shardstream.train.engine import feature_blocks
from shardstream.train.engine.feature_blocks import SplitFeatures
from shardstream.train.engine.features import BATCH_SIZE, Batches, Extractor

# Batches between two looks at whether a worker has to stop, for which they wait for each other: seconds on a CPU, less
# than the usual grace period.
_BATCHES_PER_LOOK = 8


def compute_together(
    split: SplitFeatures,
    workers: Workers,
    batches_of: Callable[[np.ndarray], Batches],
    make_extractors: Callable[[], Sequence[Extractor]],
    *,
    check_stop: Callable[[], None],
) -> None:
    """Computes the blocks that the chief lacks, block b on worker b modulo the number of workers, and sends them to it.

    A worker uses the blocks in its own cache. All workers must call this together; on the others some stay missing.

    Args:
        split: The split, as this worker has it.
        workers: The workers of the run.
        batches_of: See `SplitFeatures.computed`.
        make_extractors: Returns the extractors of this worker's devices; called if there is something to compute.
        check_stop: Called by all workers together; an exception in it, raised on all of them, ends the pass.
    """
    if workers.cluster.num_workers == 1:
        if split.missing:
            split.compute(batches_of, make_extractors(), after_batch=check_stop)
        return
    rank, num_workers = workers.shard
    wanted = json.loads(workers.broadcast(json.dumps(split.missing).encode()))
    shares = [[block for block in wanted if block % num_workers == owner] for owner in range(num_workers)]
    looks = _Looks(check_stop)
    missing = [block for block in shares[rank] if block in split.missing]
    extractors = make_extractors() if missing else ()
    computed = split.computed(missing, batches_of, extractors, after_batch=looks.after_batch)
    with contextlib.closing(computed):
        for turn in range(max(map(len, shares))):
            looks.begin()
            if turn < len(shares[rank]) and shares[rank][turn] in missing:
                next(computed)
            looks.end()
            for owner, blocks in enumerate(shares):
                if turn < len(blocks):
                    mine = split.to_bytes(blocks[turn]) if owner == rank else b""
                    content = workers.broadcast(mine, owner)
                    if workers.is_chief and owner != rank:
                        split.receive(blocks[turn], content)


class _Looks:
    """Lets all workers look equally often during a block, those with fewer or no batches too."""

    def __init__(self, check_stop: Callable[[], None]) -> None:
        self._check_stop = check_stop
        self._num_batches = self._num_looks = 0

    def begin(self) -> None:
        self._num_batches = self._num_looks = 0

    def after_batch(self) -> None:
        self._num_batches += 1
        if self._num_batches % _BATCHES_PER_LOOK == 0:
            self._look()

    def end(self) -> None:
        while self._num_looks < -(-feature_blocks.BLOCK_SIZE // (BATCH_SIZE * _BATCHES_PER_LOOK)):
            self._look()

    def _look(self) -> None:
        self._num_looks += 1
        self._check_stop()
