"""What several workers tell each other, and what is said when one of them is lost."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from shardstream.train.distributed.cluster import Cluster, StrategyName, WorkerLostError, find_cluster
from shardstream.train.distributed.preemption import STOP_SIGNALS, without_ignored
from shardstream.train.distributed.strategy import make_strategy

# How TensorFlow names a worker in its errors.
_TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")
# Numbers that travel at once: 64 MB.
_CHUNK = 2**24


class Workers:
    """The workers of a run, with the strategy that they share; one, and nothing to tell, in most runs."""

    def __init__(self, cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
        """Takes the strategy that was made for `cluster`."""
        self.cluster = cluster
        self.strategy = strategy

    @property
    def is_chief(self) -> bool:
        """Whether this one writes the run folder."""
        return self.cluster.is_chief

    @property
    def shard(self) -> tuple[int, int]:
        """Which part of each batch this one reads: its index, and the number of parts."""
        return self.cluster.rank, self.cluster.num_workers

    def broadcast(self, content: bytes, source: int = 0) -> bytes:
        """Returns the `content` that worker number `source` gives; all workers have to call this at once."""
        if self.cluster.num_workers == 1:
            return content
        with ended_by_signals():
            return self._broadcast(content, source)

    def _broadcast(self, content: bytes, source: int) -> bytes:
        is_mine = self.cluster.rank == source
        length = self._sum(np.asarray([len(content) if is_mine else 0], np.float64))
        num_numbers = -(-int(length[0]) // 2)
        numbers = np.zeros(num_numbers, np.float32)
        if is_mine:
            numbers[:] = np.frombuffer(content + bytes(len(content) % 2), np.uint16)
        # As sums with nothing, because a sum is what every device can do; float32 holds 16 bits exactly.
        parts = [
            self._sum(numbers[start : start + _CHUNK]).astype(np.uint16)
            for start in range(0, num_numbers, _CHUNK)
        ]
        return b"".join(part.tobytes() for part in parts)[: int(length[0])]

    def gather(self, content: bytes) -> list[bytes]:
        """Returns what each worker gives, by rank; all workers have to call this at once."""
        return [self.broadcast(content, source) for source in range(self.cluster.num_workers)]

    def _sum(self, mine: np.ndarray) -> np.ndarray:
        num_local = self.strategy.num_replicas_in_sync // self.cluster.num_workers

        def value(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            # A host gives its numbers once, however many devices it has.
            is_first = context.replica_id_in_sync_group % num_local == 0
            return tf.constant(mine if is_first else np.zeros_like(mine))

        values = self.strategy.experimental_distribute_values_from_function(value)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    @contextlib.contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Says in one sentence that another worker is gone: TensorFlow cannot go on without it, nor take it back.

        Raises:
            WorkerLostError: It is.
        """
        try:
            yield
        except tf.errors.OpError as error:
            # The device that an operation ran on, one of this worker's, may be named as well.
            ranks = [rank for rank in map(int, _TASK.findall(str(error))) if rank != self.cluster.rank]
            if self.cluster.num_workers == 1 or not ranks:
                raise
            rank = ranks[-1]
            lost = f"worker {rank} ({self.cluster.addresses[rank]})"
            raise WorkerLostError(
                f"{self.cluster.name}: {lost} is gone or cannot be reached, and its output says why; run the same "
                "command again on all hosts, and the run goes on from its last state"
            ) from None


def join_workers(*, strategy: StrategyName, hosts: str | None, rank: int | None) -> Workers:
    """Returns the workers that the options name, once all of them are there.

    Raises:
        ConfigError: The options name none, or no devices, that there can be.
        StoppedError: SIGTERM, SIGHUP or Ctrl-C while it waited for the others.
        WorkerLostError: Some did not come, or cannot be reached.
    """
    cluster = find_cluster(hosts, rank)
    try:
        with ended_by_signals():
            return Workers(cluster, make_strategy(strategy, cluster))
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0]
        raise WorkerLostError(
            f"{cluster.name}: the workers {', '.join(cluster.addresses)} did not come together ({reason}); see whether "
            "all were started, can reach each other, and have these ports to themselves"
        ) from None


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Signals end this process at once meanwhile, for Python hears of none while TensorFlow waits for others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in without_ignored(STOP_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
