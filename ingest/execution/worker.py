"""Start-up of a worker process: exits with its parent, silences decoders, uses one thread."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """Blocks Ctrl-C, which is sent to the whole process group, in processes started inside this context.

    Otherwise each of them would die with a traceback. This process receives a pending Ctrl-C afterwards.
    """
    # All multiprocessing processes need it; starting it inside the block would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Has the kernel kill this process when its parent ends, even by `kill -9`.

    Otherwise a worker would wait for tasks forever, because it holds both ends of their pipe. Only the parent holds the
    other end of the sentinel. When that closes, the kernel sends SIGIO, which kills a process without a handler for it,
    whatever it is doing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, os.O_ASYNC)
    if not parent.is_alive():
        os._exit(1)


def silence_decoders() -> None:
    """Redirects stderr to /dev/null: warnings of libtiff and libjpeg there repeat the recorded reason."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def use_one_thread() -> None:
    """Limits OpenCV to one thread: parallelism comes from the processes, more threads would oversubscribe the cores."""
    import cv2

    cv2.setNumThreads(1)
