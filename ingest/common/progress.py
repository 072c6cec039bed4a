"""Progress of long work on stderr: a bar on a terminal, occasional lines elsewhere."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

_SECS_BETWEEN_LINES = 30.0


class Advance(Protocol):
    """A callback that reports progress."""

    def __call__(self, count: int, *, num_bytes: int = 0, num_rejected: int = 0) -> None:
        """Reports `count` more items, their total bytes, and how many of them were rejected."""
        ...


@contextlib.contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Yields a callback to report progress.

    Args:
        what: Label of the work, such as "judging".
        total: Total number of items.
        unit: Unit of the items, such as "files".
    """
    done = _Done(total)
    with (_bar if sys.stderr.isatty() else _lines)(what, unit, done) as show:

        def advance(count: int, *, num_bytes: int = 0, num_rejected: int = 0) -> None:
            done.count += count
            done.num_bytes += num_bytes
            done.num_rejected += num_rejected
            show()

        yield advance


@dataclasses.dataclass(slots=True)
class _Done:
    total: int
    count: int = 0
    num_bytes: int = 0
    num_rejected: int = 0
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def rate(self) -> str:
        """Returns the rate per second, and the number of rejected items so far."""
        secs = max(1e-9, time.monotonic() - self.began)
        text = f"{self.count / secs:,.0f}/s"
        if self.num_bytes:
            text += f", {self.num_bytes / secs / 1e6:,.1f} MB/s"
        if self.num_rejected:
            text += f", {self.num_rejected:,} rejected"
        return text

    @property
    def secs_left(self) -> float:
        return (self.total - self.count) * (time.monotonic() - self.began) / max(1, self.count)


@contextlib.contextmanager
def _bar(what: str, unit: str, done: _Done) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=done.total, rate="")
        yield lambda: bar.update(task, completed=done.count, rate=done.rate)


@contextlib.contextmanager
def _lines(what: str, unit: str, done: _Done) -> Iterator[Callable[[], None]]:
    last, is_said = time.monotonic(), False

    def show() -> None:
        nonlocal last, is_said
        # Short work says nothing; of other work the last line has the final count.
        if (is_said and done.count == done.total) or time.monotonic() - last >= _SECS_BETWEEN_LINES:
            last, is_said = time.monotonic(), True
            print(
                f"{what}: {done.count:,} of {done.total:,} {unit}, {done.rate}, {done.secs_left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    yield show
