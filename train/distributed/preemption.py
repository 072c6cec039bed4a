"""Graceful shutdown on SIGTERM, SIGHUP and Ctrl-C: the signal is noted, and training stops between two steps."""

import os
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType, TracebackType
from typing import Any

from shardstream.ingest.common.errors import UserError

# A terminal sends SIGHUP when it is closed.
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C", signal.SIGHUP: "SIGHUP"}
STOP_SIGNALS = tuple(_NAMES)


def sender(number: signal.Signals) -> str:
    """Returns the name of the signal as users know it."""
    return _NAMES[number]


def without_ignored(signals: Collection[signal.Signals]) -> list[signal.Signals]:
    """Returns the signals that this process does not ignore."""
    return [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]


def is_noted(number: signal.Signals) -> bool:
    """Returns whether a `StopRequest` of this process notes the signal."""
    return isinstance(getattr(signal.getsignal(number), "__self__", None), StopRequest)


class StoppedError(UserError):
    """Training stopped on request."""

    def __init__(self, sentence: str, number: signal.Signals) -> None:
        """Takes the message and the signal."""
        super().__init__(sentence)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal instead of raising it, as an exception inside a step would leave the state between two.

    A process that does not stop within the grace period is ended: SIGKILL usually follows SIGTERM, and files are
    written atomically. A second Ctrl-C ends the process at once. Signals that were ignored from the start, as `nohup`
    does with SIGHUP, stay ignored. Previous handlers are restored at the end.

    A separate thread watches the grace period, woken through a file descriptor: Python runs handlers only in the main
    thread, and not while that is inside TensorFlow, which may be compiling a step or waiting for other workers.
    """

    def __init__(
        self,
        grace_secs: float,
        *,
        signals: Collection[signal.Signals] = STOP_SIGNALS,
        program: str = "shardstream-train",
    ) -> None:
        """Takes the grace period in seconds, the signals, and the program name for messages.

        If `what_is_kept` is set, the message of a process that did not stop in time ends with its result.
        """
        self._signals = signals
        self._program = program
        self.received: signal.Signals | None = None
        self.what_is_kept: Callable[[], str] | None = None
        self._grace_secs = grace_secs
        self._handlers: dict[signal.Signals, Any] = {}
        self._is_over = threading.Event()

    def __enter__(self) -> "StopRequest":
        # Only the main thread may set handlers; in other threads signals are the caller's concern.
        if threading.current_thread() is threading.main_thread():
            reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            self._watcher = threading.Thread(target=self._watch, args=(reading,), daemon=True)
            self._watcher.start()
            self._handlers = {
                number: signal.signal(number, self._receive) for number in without_ignored(self._signals)
            }
            self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        self._is_over.set()
        os.close(self._writing)
        self._watcher.join()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        # The system's default action from now on: no Python handler runs while a step hangs.
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self, reading: int) -> None:
        """Waits for a signal or the end, and ends the process if a signal is not followed by the end in time."""
        with os.fdopen(reading, "rb", buffering=0) as file:
            numbers = (byte[0] for byte in iter(lambda: file.read(1), b"") if byte[0] in self._handlers)
            number = next(numbers, None)
            if number is None or self._is_over.wait(min(self._grace_secs, threading.TIMEOUT_MAX)):
                return
        sentence = f"stopped by {sender(signal.Signals(number))}, {self._grace_secs:g} s after it"
        if self.what_is_kept:
            sentence += f"; {self.what_is_kept()}"
        os.write(2, f"{self._program}: {sentence}\n".encode())
        os._exit(128 + number)
