"""Groups files by a regular expression, in a process of its own with a time limit: backtracking may never end."""

import itertools
import re
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.execution.processes import open_pools

_PATHS_AT_ONCE = 16_384
_MAX_SECS = 20  # Per batch of paths; an ordinary expression takes 0.02.


def find_groups(pattern: str, paths: Iterable[str]) -> Iterator[str | None]:
    """Yields the first group of `pattern` in each path, None if it does not match.

    Raises:
        ConfigError: The expression takes too long.
    """
    remaining = iter(paths)
    with open_pools(1) as engine:
        while chunk := list(itertools.islice(remaining, _PATHS_AT_ONCE)):
            try:
                yield from engine.submit(_match, (pattern, chunk)).result()
            except BrokenExecutor:
                raise ConfigError(
                    f"--keep-together {pattern}: takes more than {_MAX_SECS} s on paths such as {chunk[0]}; give a "
                    "simpler regular expression"
                ) from None


def _match(task: tuple[str, list[str]]) -> list[str | None]:
    pattern, paths = task
    signal.alarm(_MAX_SECS)
    search = re.compile(pattern).search
    groups = [match[1] if (match := search(path)) else None for path in paths]
    signal.alarm(0)
    return groups
