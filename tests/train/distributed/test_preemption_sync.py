import signal

import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.distributed.preemption_sync import PreemptionSync


def step(*workers: PreemptionSync) -> None:
    """What a step does: all workers get the sums of what all want."""
    sums = tf.constant(np.sum([worker.stop_flags.numpy() for worker in workers], axis=0))
    for worker in workers:
        worker.note(sums)


def test_one_worker_asks_nobody():
    worker = PreemptionSync(1)
    assert worker.agree(None, at_once=False) is None
    step(worker)
    assert worker.agree(signal.SIGTERM, at_once=False) == signal.SIGTERM
    assert worker.agree(signal.SIGINT, at_once=True) == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_agree_after_the_same_step(number):
    workers = [PreemptionSync(3) for _ in range(3)]
    agreed = []
    for i in range(8):
        step(*workers)
        wanted = [None, number if i >= 2 else None, None]
        agreed.append(
            [worker.agree(want, at_once=False) for worker, want in zip(workers, wanted, strict=True)]
        )
        if any(agreed[-1]):
            break
    # Wanted after step 2, part of the sums of step 3, and these are read once step 5 has been started.
    assert agreed == [[None] * 3] * 5 + [[number] * 3]


def test_at_the_end_of_an_epoch_nothing_is_outstanding():
    workers = [PreemptionSync(2), PreemptionSync(2)]
    workers[1].agree(signal.SIGINT, at_once=False)
    step(*workers)
    assert [worker.agree(None, at_once=True) for worker in workers] == [signal.SIGINT] * 2
    assert [worker.agree(None, at_once=True) for worker in workers] == [None] * 2


def test_sigterm_comes_before_ctrl_c():
    workers = [PreemptionSync(2), PreemptionSync(2)]
    workers[0].agree(signal.SIGINT, at_once=False)
    workers[1].agree(signal.SIGTERM, at_once=False)
    step(*workers)
    assert {worker.agree(None, at_once=True) for worker in workers} == {signal.SIGTERM}
