"""Makes stdin, stdout and stderr robust: they may be closed, a pipe without a reader, or have any encoding."""

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO, cast

_READER_IS_GONE = {errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET}


def prepare_streams() -> None:
    """Ensures that printing never fails: output errors must not interrupt the work."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # Closed. The next opened file would get its descriptor, and receive the output.
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - Stays open.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if not isinstance(stream, _ForgivingStream):
            setattr(sys, name, cast(TextIO, _ForgivingStream(stream)))


def flush_streams() -> None:
    """Flushes the buffers, so that the interpreter cannot fail to do so at exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # Already closed.
            stream.flush()


class _ForgivingStream:
    """A stream that silently discards output after its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._forgiving():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._forgiving():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiving(self) -> Any:
        try:
            yield
        except OSError as error:
            if error.errno not in _READER_IS_GONE:
                raise OSError(error.errno, error.strerror, self._stream.name) from None
            # Otherwise each write would try to flush the buffer again.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
