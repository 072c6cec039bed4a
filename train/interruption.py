"""SIGTERM and Ctrl-C while training: asked for now, answered between two steps."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ingest.errors import UserError

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StoppedError(UserError):
    """Training was asked to stop, and did."""

    def __init__(self, sentence: str, number: signal.Signals) -> None:
        """Takes the signal that asked."""
        super().__init__(sentence)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal instead of raising it, as an exception inside a step would leave the state between two.

    What does not stop within the grace period is ended: who sent SIGTERM will send SIGKILL next, and files are
    whole at any moment. A second Ctrl-C ends the process at once. Handlers of others are put back at the end.
    """

    def __init__(self, grace_secs: float) -> None:
        """Takes the time from the signal to the end of the process."""
        self.received: signal.Signals | None = None
        self._grace_secs = grace_secs
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def sender(self) -> str:
        """What asked, as people call it."""
        return _NAMES[self.received] if self.received else ""

    def __enter__(self) -> "StopRequest":
        # Python lets no other thread do this; there, signals are the main thread's business.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._receive) for number in _NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received:
            return
        self.received = signal.Signals(number)
        # The system's own end, for a step that hangs lets no handler of Python run.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        timer = threading.Timer(self._grace_secs, self._leave)
        timer.daemon = True
        timer.start()

    def _leave(self) -> None:
        if self._handlers:  # Otherwise the loop is over.
            sentence = f"stopped by {self.sender}, {self._grace_secs:g} s after it; the last checkpoint is what is kept"
            os.write(2, f"shardstream-train: {sentence}\n".encode())
            os._exit(128 + (self.received or 0))
