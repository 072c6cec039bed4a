"""SIGTERM, SIGHUP and Ctrl-C while training: asked for now, answered between two steps."""

import os
import signal
import threading
from collections.abc import Callable, Collection
from types import FrameType, TracebackType
from typing import Any

from shardstream.ingest.common.errors import UserError

# SIGHUP is what a terminal sends when it is closed.
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C", signal.SIGHUP: "SIGHUP"}
STOP_SIGNALS = tuple(_NAMES)


def sender(number: signal.Signals) -> str:
    """Returns what asked, as people call it."""
    return _NAMES[number]


def without_ignored(signals: Collection[signal.Signals]) -> list[signal.Signals]:
    """Returns those that this process does not ignore."""
    return [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]


class StoppedError(UserError):
    """Training was asked to stop, and did."""

    def __init__(self, sentence: str, number: signal.Signals) -> None:
        """Takes the signal that asked."""
        super().__init__(sentence)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal instead of raising it, as an exception inside a step would leave the state between two.

    What does not stop within the grace period is ended: who sent SIGTERM will send SIGKILL next, and files are
    whole at any moment. A second Ctrl-C ends the process at once. A signal that the process was started to ignore, as
    `nohup` has it for SIGHUP, stays ignored. Handlers of others are put back at the end.

    A thread of its own watches over the grace period, woken by the system: Python runs handlers in the main thread
    alone, and not while that is inside of TensorFlow, which may be compiling a step or waiting for other workers.
    """

    def __init__(
        self,
        grace_secs: float,
        *,
        signals: Collection[signal.Signals] = STOP_SIGNALS,
        program: str = "shardstream-train",
    ) -> None:
        """Takes the time from a signal to the end of the process, and who says so.

        Where `what_is_kept` is set, the last sentence of a process that did not stop in time ends with what it returns.
        """
        self._signals = signals
        self._program = program
        self.received: signal.Signals | None = None
        self.what_is_kept: Callable[[], str] | None = None
        self._grace_secs = grace_secs
        self._handlers: dict[signal.Signals, Any] = {}
        self._is_over = threading.Event()

    def __enter__(self) -> "StopRequest":
        # Python lets no other thread do this; there, signals are the main thread's business.
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
        # The system's own end, for a step that hangs lets no handler of Python run.
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _watch(self, reading: int) -> None:
        """Waits for a signal or for the end, and ends the process if the first is not followed by the other."""
        with os.fdopen(reading, "rb", buffering=0) as file:
            numbers = (byte[0] for byte in iter(lambda: file.read(1), b"") if byte[0] in self._handlers)
            number = next(numbers, None)
            if number is None or self._is_over.wait(self._grace_secs):
                return
        sentence = f"stopped by {sender(signal.Signals(number))}, {self._grace_secs:g} s after it"
        if self.what_is_kept:
            sentence += f"; {self.what_is_kept()}"
        os.write(2, f"{self._program}: {sentence}\n".encode())
        os._exit(128 + number)
