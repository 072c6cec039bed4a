"""How several workers stop at the same step though each is asked on its own."""

import collections
import signal

import numpy as np
import tensorflow as tf

from shardstream.train.distributed.preemption import STOP_SIGNALS

# What a worker may want, in this order in every array here.
_SIGNALS = STOP_SIGNALS
_NOTHING = np.zeros(len(_SIGNALS))
# Answers that may be outstanding. One would have Python wait for each step before it starts the next, and a
# device for Python.
_OUTSTANDING = 2


class PreemptionSync:
    """The wish to stop of each worker, summed over all of them inside of every step.

    A worker that left alone would leave the others waiting in the middle of theirs. The sums of a step are the
    same for all, so all that follow from them stop at the same one: the second after it.
    """

    def __init__(self, num_workers: int) -> None:
        """Takes how many there are; one has nobody to ask."""
        self._is_alone = num_workers == 1
        self._sums: collections.deque[tf.Tensor] = collections.deque()
        self.wishes = tf.constant(_NOTHING)

    def note(self, sums: tf.Tensor) -> None:
        """Takes the sums of `wishes` over all replicas, in one more step."""
        if not self._is_alone:
            self._sums.append(sums)

    def agree(self, wanted: signal.Signals | None, *, at_once: bool) -> signal.Signals | None:
        """Returns the signal that all workers follow now, and lets them know of `wanted`, which this one got.

        `at_once` waits for all steps so far. Every worker has to call this after the same steps.
        """
        if self._is_alone:
            return wanted
        if wanted:
            self.wishes = tf.constant([float(number == wanted) for number in _SIGNALS], tf.float64)
        total = _NOTHING.copy()
        while len(self._sums) > (0 if at_once else _OUTSTANDING):
            total += self._sums.popleft().numpy()
        return next((number for number, count in zip(_SIGNALS, total, strict=True) if count), None)
