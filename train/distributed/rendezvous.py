"""Waits for the other workers before TensorFlow does, in Python, which handles signals and can name missing workers."""

import contextlib
import faulthandler
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator

from shardstream.train.distributed.cluster import Cluster, WorkerLostError
from shardstream.train.distributed.preemption import StoppedError, StopRequest, sender

logger = logging.getLogger(__name__)

# Pods and tasks of one job may start far apart.
_MAX_SECS = 3600.0
_SECS_BETWEEN_REMINDERS = 60.0
_SECS_BETWEEN_TRIES = 0.2
_CONNECTING_SECS = 2.0
# All workers were reachable: what remains is device discovery and starting a server.
_JOINING_SECS = 60.0
# Nothing to save yet; a failing DNS lookup may take several seconds.
_GRACE_SECS = 5.0


def wait_for_workers(cluster: Cluster) -> None:
    """Returns once all other workers of `cluster` can be reached, here or already in TensorFlow's server.

    Raises:
        StoppedError: SIGTERM, SIGHUP or Ctrl-C was received.
        WorkerLostError: A worker did not connect within an hour, or the port of this one is in use.
    """
    others = [rank for rank in range(cluster.num_workers) if rank != cluster.rank]
    missing = dict.fromkeys(others, "")
    began = reminded = time.monotonic()
    logger.info("%s waits for the others: %s", cluster.name, ", ".join(cluster.addresses))
    with StopRequest(_GRACE_SECS) as stop, _listening(cluster):
        while True:
            for rank in list(missing):
                _raise_if_stopped(stop, cluster, missing)
                if reason := _reason_it_cannot_be_reached(cluster, rank):
                    missing[rank] = reason
                else:
                    del missing[rank]
            if not missing:
                return
            now = time.monotonic()
            if now - began > _MAX_SECS:
                raise WorkerLostError(
                    f"{cluster.name}: {_named(cluster, missing)} did not come within {_MAX_SECS:,.0f} s; see whether "
                    "all were started, can reach each other, and have these ports to themselves"
                )
            if now - reminded > _SECS_BETWEEN_REMINDERS:
                logger.warning("%s still waits for %s", cluster.name, _named(cluster, missing))
                reminded = now
            time.sleep(_SECS_BETWEEN_TRIES)


@contextlib.contextmanager
def startup_watchdog(cluster: Cluster) -> Iterator[None]:
    """Ends this process with a message and exit code 1 if TensorFlow takes more than a minute to join the workers.

    TensorFlow waits up to an hour for a worker that was reachable and died, while holding the GIL: no handler and no
    Python thread runs. The watchdog of `faulthandler` needs no GIL, but prints a traceback; so a shell reads its output
    and prints the message instead.
    """
    sentence = (
        f"shardstream-train: {cluster.name}: the workers {', '.join(cluster.addresses)} were all there, and within "
        f"{_JOINING_SECS:g} s did not come together; the output of the others says why; run the same command again "
        "on all hosts"
    )
    script = 'if read -r line; then echo "$1" >&2; fi'
    heard, said = os.pipe()
    with subprocess.Popen(["/bin/sh", "-c", script, "sh", sentence], stdin=heard):
        os.close(heard)
        faulthandler.dump_traceback_later(_JOINING_SECS, exit=True, file=said)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            os.close(said)


def _raise_if_stopped(stop: StopRequest, cluster: Cluster, missing: dict[int, str]) -> None:
    if stop.received:
        raise StoppedError(
            f"{cluster.name}: stopped by {sender(stop.received)} while it waited for {_named(cluster, missing)}; "
            "nothing was begun",
            stop.received,
        )


def _named(cluster: Cluster, missing: dict[int, str]) -> str:
    return ", ".join(
        f"worker {rank} ({cluster.addresses[rank]}{': ' * bool(reason)}{reason})"
        for rank, reason in missing.items()
    )


def _reason_it_cannot_be_reached(cluster: Cluster, rank: int) -> str:
    try:
        socket.create_connection(cluster.host_and_port(rank), timeout=_CONNECTING_SECS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    """Accepts connections on the port of this worker, without sending anything."""
    _, port = cluster.host_and_port(cluster.rank)
    everywhere = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    try:
        server = socket.create_server(("", port), **everywhere)
    except OSError as error:
        raise WorkerLostError(
            f"{cluster.name}: cannot listen on its port ({os.strerror(error.errno or 0)}); end the program that has "
            "it, or name another one on all hosts"
        ) from None
    with server:
        yield
