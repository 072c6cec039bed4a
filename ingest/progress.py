"""Long work shows itself: a bar on a terminal, a line now and then elsewhere. Always on stderr."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_SECS_BETWEEN_LINES = 30.0

Advance = Callable[[int], None]


@contextlib.contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Gives a function that is told how many more are done.

    Args:
        what: Such as "judging".
        total: How many there are.
        unit: Of what, such as "files".
    """
    shows = _bar if sys.stderr.isatty() else _lines
    with shows(what, total, unit) as advance:
        yield advance


@contextlib.contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Advance]:
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
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            rate = bar.tasks[0].completed / max(1e-9, time.monotonic() - began)
            bar.update(task, rate=f"{rate:,.0f}/s")

        yield advance


@contextlib.contextmanager
def _lines(what: str, total: int, unit: str) -> Iterator[Advance]:
    began = said = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said >= _SECS_BETWEEN_LINES:
            said = now
            rate = done / (now - began)
            left = (total - done) / rate
            print(f"{what}: {done:,} of {total:,} {unit}, {rate:,.0f}/s, {left:,.0f} s left", file=sys.stderr)

    yield advance
