"""Agrees on one step at which all workers stop after any of them receives a signal."""

import collections
import signal

import numpy as np
import tensorflow as tf

from shardstream.train.distributed.preemption import STOP_SIGNALS

# The signals, in the order used in all arrays here.
_SIGNALS = STOP_SIGNALS
_NOTHING = np.zeros(len(_SIGNALS))
# Pending reads. With only one, Python would wait for each step before it starts the next, and the device would wait
# for Python.
_OUTSTANDING = 2


class PreemptionSync:
    """Stop flags of all workers, summed inside every step.

    A worker that left alone would leave the others waiting in the middle of their step. The sums of a step are the
    same on all workers, so all of them stop at the same one: the second step after it.
    """

    def __init__(self, num_workers: int) -> None:
        """Takes the number of workers; a single worker has nothing to synchronize."""
        self._is_alone = num_workers == 1
        self._sums: collections.deque[tf.Tensor] = collections.deque()
        self.stop_flags = tf.constant(_NOTHING)

    def note(self, sums: tf.Tensor) -> None:
        """Adds the sums of `stop_flags` over all replicas of one more step."""
        if not self._is_alone:
            self._sums.append(sums)

    def agree(self, wanted: signal.Signals | None, *, at_once: bool) -> signal.Signals | None:
        """Returns the signal that all workers act on now, and tells them about `wanted`, which this worker received.

        `at_once` waits for all steps so far. All workers must call this after the same steps.
        """
        if self._is_alone:
            return wanted
        if wanted:
            self.stop_flags = tf.constant([float(number == wanted) for number in _SIGNALS], tf.float64)
        total = _NOTHING.copy()
        while len(self._sums) > (0 if at_once else _OUTSTANDING):
            total += self._sums.popleft().numpy()
        return next((number for number, count in zip(_SIGNALS, total, strict=True) if count), None)
