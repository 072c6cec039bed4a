import re
import signal

import pytest
import tensorflow as tf

from shardstream.train.config import TrainConfig
from shardstream.train.distributed import workers
from shardstream.train.distributed.cluster import ALONE, Cluster
from shardstream.train.distributed.preemption import StopRequest
from shardstream.train.distributed.workers import WorkerLostError, Workers, ended_by_signals, join_workers

TWO = Cluster(("a:2222", "b:2222"), 0)


def test_one_worker_has_nobody_to_tell():
    alone = Workers(ALONE, tf.distribute.get_strategy())
    assert alone.broadcast(b"word") == b"word"
    assert alone.gather(b"word") == [b"word"]
    assert alone.agree(signal.SIGTERM) == signal.SIGTERM
    assert alone.agree(None) is None
    assert (alone.is_chief, alone.shard) == (True, (0, 1))


def test_signals_that_are_noted_do_not_end_a_process_that_waits():
    def other(*_):
        raise AssertionError("called")

    before = signal.signal(signal.SIGTERM, other)
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is other
        with StopRequest(60) as stop:
            with ended_by_signals():
                signal.raise_signal(signal.SIGTERM)
            assert stop.received == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("cluster", [ALONE, TWO])
def test_only_what_names_another_worker_is_a_worker_lost(cluster):
    found = Workers(cluster, tf.distribute.get_strategy())
    for bug in ("a bug", "a bug on /job:worker/replica:0/task:0/device:CPU:0", "on /job:localhost/task:1"):
        with pytest.raises(tf.errors.InternalError), found.noticing_losses():
            raise tf.errors.InternalError(None, None, bug)
    expected = tf.errors.UnavailableError if cluster is ALONE else WorkerLostError
    with pytest.raises(expected) as caught, found.noticing_losses():
        raise tf.errors.UnavailableError(
            None,
            None,
            "{{node on /job:worker/replica:0/task:0/device:CPU:0}} Error reported from /job:worker/task:1: these tasks "
            "are unhealthy: /job:worker/replica:0/task:1",
        )
    if cluster is TWO:
        assert "worker 0 (a:2222): worker 1 (b:2222) is gone or cannot be reached" in str(caught.value)


def test_workers_that_do_not_come_are_said(tmp_path, monkeypatch):
    def never(name, cluster):
        raise tf.errors.DeadlineExceededError(None, None, "Deadline Exceeded\nmore")

    monkeypatch.setattr(workers, "make_strategy", never)
    config = TrainConfig(data_dir=tmp_path, run=tmp_path, hosts="a:2222,b:2222", rank=1)
    sentence = (
        "worker 1 (b:2222): the workers a:2222, b:2222 did not come together (Deadline Exceeded); see whether"
    )
    with pytest.raises(WorkerLostError, match=re.escape(sentence)):
        join_workers(strategy=config.strategy, hosts=config.hosts, rank=config.rank)
