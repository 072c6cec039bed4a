import json
import re

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.config import TrainConfig
from shardstream.train.distributed.cluster import ALONE, Cluster, find_cluster


def tf_config(**content) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps(content)}


def test_nobody_named_is_one_worker_alone():
    assert find_cluster(None, None, {}) is ALONE
    assert find_cluster(None, None, {"TF_CONFIG": " "}) is ALONE
    assert (ALONE.num_workers, ALONE.is_chief) == (1, True)


def test_hosts_and_rank():
    cluster = find_cluster("a:2222,10.0.0.5:2223,[::1]:80", 1, tf_config(cluster={}))
    assert cluster == Cluster(("a:2222", "10.0.0.5:2223", "[::1]:80"), 1)
    assert (cluster.num_workers, cluster.is_chief, cluster.name) == (3, False, "worker 1 (10.0.0.5:2223)")


@pytest.mark.parametrize(
    ("cluster", "task", "addresses", "rank"),
    [
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1}, ("a:1", "b:2"), 1),
        # A chief is a worker too, and the first.
        ({"chief": ["c:3"], "worker": ["a:1"]}, {"type": "worker", "index": 0}, ("c:3", "a:1"), 1),
        ({"chief": ["c:3"], "worker": ["a:1"]}, {"type": "chief", "index": 0}, ("c:3", "a:1"), 0),
        ({"worker": ["a:1"]}, {"type": "worker", "index": "0"}, ("a:1",), 0),
    ],
)
def test_tf_config(cluster, task, addresses, rank):
    assert find_cluster(None, None, tf_config(cluster=cluster, task=task)) == Cluster(addresses, rank)


@pytest.mark.parametrize(
    ("hosts", "rank", "sentence"),
    [
        (
            "a:1,b:2",
            None,
            "hosts and rank go together, and rank is missing; give for example --hosts a:2222,",
        ),
        (None, 0, "hosts and rank go together, and hosts is missing"),
        ("a:1,b", 0, "hosts: 'b' is no host and port such as a:2222"),
        ("a:1,b:0", 0, "hosts: 'b:0' is no host and port such as a:2222"),
        ("a:1,b:65536", 0, "hosts: 'b:65536' is no host and port"),
        ("a:1, b:2", 0, "hosts: ' b:2' is no host and port"),
        ("a:1,b:2,a:1", 0, "hosts: a:1, b:2, a:1 names a worker twice"),
        ("a:1,b:2", 2, "rank is 2, but the 2 workers have the numbers 0 to 1"),
        ("a:1,b:2", -1, "rank is -1, but the 2 workers"),
    ],
)
def test_what_names_no_cluster_is_refused(tmp_path, hosts, rank, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        TrainConfig(data_dir=tmp_path, run=tmp_path, hosts=hosts, rank=rank)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "TF_CONFIG: Expecting property name"),
        ("[" * 200_000, "TF_CONFIG: maximum recursion depth exceeded"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": Infinity}}',
            "TF_CONFIG: cannot convert float infinity to integer",
        ),
        ("[]", "TF_CONFIG: list indices must be integers"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: no 'task' in it; expected for example {"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "ps", "index": 0}}',
            "TF_CONFIG: of the kinds of tasks only chief and worker are known",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "its task is 1, but the 1 workers have the numbers 0 to 0",
        ),
    ],
)
def test_a_tf_config_that_names_no_cluster_is_refused(content, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        find_cluster(None, None, {"TF_CONFIG": content})
