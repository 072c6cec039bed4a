"""Workers that wait for others, in real processes in a network that has the loopback device alone."""

import json
import os
import signal
import sys
import time

import pytest

from scripts.faults import loopback

REASON = loopback.reason_it_cannot()
pytestmark = pytest.mark.skipif(
    REASON is not None, reason=f"workers wait in a network of their own: {REASON}"
)

# Where TensorFlow loads, so does the rest of the command. Reminders come at once, to see that it waits.
COMMAND = """
import sys
from shardstream.train.distributed import rendezvous
from shardstream.train.__main__ import main

rendezvous._SECS_BETWEEN_REMINDERS = 0.0
rendezvous._JOINING_SECS = float(sys.argv.pop(1))
sys.exit(main(sys.argv[1:]))
"""
# Comes, and dies before TensorFlow.
LEAVES = """
import sys
from shardstream.train.distributed import rendezvous
from shardstream.train.distributed.cluster import find_cluster

rendezvous.wait_for_workers(find_cluster(sys.argv[1], 0))
"""
MEETINGS = """
import json, socket
from shardstream.ingest.common.errors import UserError
from shardstream.train.distributed import rendezvous
from shardstream.train.distributed.cluster import Cluster

rendezvous._MAX_SECS = 1.0
HERE, THERE, THIRD = "127.0.0.1:2300", "127.0.0.1:2301", "localhost:2302"
found = {}

def meet(name, *addresses):
    try:
        found[name] = rendezvous.wait_for_workers(Cluster(addresses, 0))
    except UserError as error:
        found[name] = [type(error).__name__, error.exit_code, str(error)]

meet("nobody", HERE, THERE, THIRD)
with socket.create_server(("127.0.0.1", 2301)) as there:
    meet("one is missing", HERE, THERE, THIRD)
    meet("no such name", HERE, THERE, "nobody.invalid:2302")
    with socket.create_server(("127.0.0.1", 2302)) as third:
        meet("all", HERE, THERE, THIRD)
    meet("port taken", THERE, HERE)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def meetings(tmp_path_factory):
    with loopback.side_by_side([[sys.executable, "-c", MEETINGS]], tmp_path_factory.mktemp("logs")) as group:
        assert group.wait() == [0], group.logs()
        return json.loads(group.logs()[0].splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        (
            "nobody",
            "worker 1 (127.0.0.1:2301: Connection refused), worker 2 (localhost:2302: Connection refused) did not come",
        ),
        ("one is missing", "worker 2 (localhost:2302: Connection refused) did not come"),
        ("no such name", "worker 2 (nobody.invalid:2302: "),
    ],
)
def test_who_did_not_come_is_said(meetings, name, missing):
    kind, code, sentence = meetings[name]
    assert (kind, code) == ("WorkerLostError", 1)
    assert sentence.startswith(f"worker 0 (127.0.0.1:2300): {missing}")
    assert "did not come within 1 s; see whether all were started" in sentence


def test_all_are_there_once_each_can_be_reached(meetings):
    assert meetings["all"] is None


def test_a_port_that_is_taken_is_said(meetings):
    kind, code, sentence = meetings["port taken"]
    assert (kind, code) == ("WorkerLostError", 1)
    assert sentence.startswith(
        "worker 0 (127.0.0.1:2301): cannot listen on its port (Address already in use); end the program"
    )


@pytest.mark.slow
def test_a_worker_that_waits_leaves_when_it_is_asked_to(striped, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    commands = [
        [
            *[sys.executable, "-c", COMMAND, "60"],
            *[str(striped.data_dir), "--run", str(tmp_path / f"run {rank}")],
            *["--hosts", f"127.0.0.1:24{rank}0,127.0.0.1:24{rank}1", "--rank", str(rank)],
        ]
        for rank in (0, 1)
    ]
    with loopback.side_by_side(commands, tmp_path / "logs") as group:
        while not all("still waits for" in log for log in group.logs()):
            assert group.is_running(), group.logs()
            time.sleep(0.05)
        for pid, number in zip(group.pids, (signal.SIGTERM, signal.SIGINT), strict=True):
            os.kill(pid, number)
        assert group.wait() == [143, 130], group.logs()
        ends = [log.splitlines()[-1] for log in group.logs()]
    said = (("SIGTERM", 240), ("Ctrl-C", 241))
    for rank, (end, (sender, port)) in enumerate(zip(ends, said, strict=True)):
        assert end == (
            f"shardstream-train: worker {rank} (127.0.0.1:{port}{rank}): stopped by {sender} while it waited for "
            f"worker {1 - rank} (127.0.0.1:{port}{1 - rank}: Connection refused); nothing was begun"
        )


@pytest.mark.slow
def test_a_worker_that_dies_once_it_was_there_is_not_waited_for_long(striped, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    hosts = "127.0.0.1:2500,127.0.0.1:2501"
    commands = [
        [sys.executable, "-c", LEAVES, hosts],
        [
            *[sys.executable, "-c", COMMAND, "3", str(striped.data_dir), "--run", str(tmp_path / "run")],
            *["--hosts", hosts, "--rank", "1"],
        ],
    ]
    with loopback.side_by_side(commands, tmp_path / "logs") as group:
        assert group.wait() == [0, 1], group.logs()
        deadline = time.monotonic() + 60
        while "run the same" not in group.logs()[1] and time.monotonic() < deadline:
            time.sleep(0.05)  # The shell that says it may be a little later.
        end = group.logs()[1].splitlines()[-1]
    assert end == (
        "shardstream-train: worker 1 (127.0.0.1:2501): the workers 127.0.0.1:2500, 127.0.0.1:2501 were all there, and "
        "within 3 s did not come together; the output of the others says why; run the same command again on all hosts"
    )
