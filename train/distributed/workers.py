"""Communication between workers, and the error message when one is lost."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from shardstream.train.distributed.cluster import Cluster, StrategyName, WorkerLostError, find_cluster
from shardstream.train.distributed.preemption import STOP_SIGNALS, is_noted, without_ignored
from shardstream.train.distributed.strategy import make_strategy

# Name of a worker in TensorFlow's errors.
_TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")
# Numbers sent at once: 64 MB.
_CHUNK = 2**24


class Workers:
    """The workers of a run and their strategy; mostly a single worker, with nothing to communicate."""

    def __init__(self, cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
        """Takes the strategy made for `cluster`."""
        self.cluster = cluster
        self.strategy = strategy

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the run folder."""
        return self.cluster.is_chief

    @property
    def shard(self) -> tuple[int, int]:
        """The part of each batch that this worker reads: its index, and the number of parts."""
        return self.cluster.rank, self.cluster.num_workers

    def broadcast(self, content: bytes, source: int = 0) -> bytes:
        """Returns the `content` of worker number `source`; all workers must call this together."""
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
        # Sent as a sum with zeros, because every device supports sums; float32 holds 16 bits exactly.
        parts = [
            self._sum(numbers[start : start + _CHUNK]).astype(np.uint16)
            for start in range(0, num_numbers, _CHUNK)
        ]
        return b"".join(part.tobytes() for part in parts)[: int(length[0])]

    def gather(self, content: bytes) -> list[bytes]:
        """Returns the content of each worker, by rank; all workers must call this together."""
        return [self.broadcast(content, source) for source in range(self.cluster.num_workers)]

    def agree(self, wanted: signal.Signals | None) -> signal.Signals | None:
        """Returns the signal that all workers act on: one that this or another worker received, or None.

        All workers must call this together, within a `StopRequest`, which ends the process if the others never come.

        Args:
            wanted: The signal that this worker received.
        """
        if self.cluster.num_workers == 1:
            return wanted
        counts = self._sum(np.asarray([number == wanted for number in STOP_SIGNALS], np.float32))
        return next((number for number, count in zip(STOP_SIGNALS, counts, strict=True) if count), None)

    def _sum(self, mine: np.ndarray) -> np.ndarray:
        num_local = self.strategy.num_replicas_in_sync // self.cluster.num_workers

        def value(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            # A host contributes its numbers once, regardless of its number of devices.
            is_first = context.replica_id_in_sync_group % num_local == 0
            return tf.constant(mine if is_first else np.zeros_like(mine))

        values = self.strategy.experimental_distribute_values_from_function(value)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    @contextlib.contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Converts TensorFlow's errors about a lost worker, which cannot be replaced, into a one-line error.

        Raises:
            WorkerLostError: A worker was lost.
        """
        try:
            yield
        except tf.errors.OpError as error:
            # The error may also name the device of the operation, which belongs to this worker.
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
    """Returns the workers given by the options, once all of them are connected.

    Raises:
        ConfigError: The options are invalid, or name devices that do not exist.
        StoppedError: A signal was received while waiting for the others.
        WorkerLostError: A worker did not connect, or cannot be reached.
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
    """Restores the default action of signals: Python handlers do not run while TensorFlow waits for other workers.

    Signals that a `StopRequest` notes are left to it: its thread ends the process if the others never come.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in without_ignored(STOP_SIGNALS) if not is_noted(number)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
