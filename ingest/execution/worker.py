"""What a worker process does at its start: it ends with its parent, is silent, and uses one thread."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """Keeps Ctrl-C, which reaches a whole group, from the processes that are started meanwhile: this one decides.

    They would die each in the middle of something and show where. This process hears of it afterwards.
    """
    # All processes of multiprocessing need it; starting it meanwhile would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Has the kernel end this process when the one that it works for ends, even by `kill -9`.

    Without it a worker of a pool waits for tasks for ever: it holds both ends of the pipe that they come through.
    The other end of the sentinel is held by the parent alone. When it closes, the kernel sends SIGIO, which ends a
    process that has no handler for it, whatever it is busy with.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, os.O_ASYNC)
    if not parent.is_alive():
        os._exit(1)


def silence_decoders() -> None:
    """Lets what libtiff and libjpeg think of broken files go unheard; the verdict says it better.

    They write straight to stderr.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def use_one_thread() -> None:
    """Keeps OpenCV to one thread: the processes are the parallelism, threads on top get in each other's way."""
    import cv2

    cv2.setNumThreads(1)
