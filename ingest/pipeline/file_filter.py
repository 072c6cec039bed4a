"""--exclude and --include: which files of the source folder are used."""

import functools
import re
from collections.abc import Sequence

from shardstream.ingest.common.errors import ConfigError


class FileFilter:
    """Globs on names and on paths relative to the source folder. Exclusion takes precedence over inclusion."""

    def __init__(self, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> None:
        self._exclude = [(pattern, _compile("--exclude", pattern)) for pattern in exclude]
        self._include = [_compile("--include", pattern) for pattern in include]

    @property
    def takes_all(self) -> bool:
        """Whether there are no globs at all."""
        return not self._exclude and not self._include

    def excluded_by(self, path: str) -> str:
        """Returns the glob that excludes a file or folder whose parents are not excluded; empty if none does."""
        return next((pattern for pattern, matches in self._exclude if matches.fullmatch(path)), "")

    def includes(self, path: str) -> bool:
        """Whether the path of a file or folder matches an --include glob; always true without such globs."""
        return not self._include or any(matches.fullmatch(path) for matches in self._include)

    def includes_below(self, path: str) -> bool:
        """Whether the path of a file or one of its parents matches an --include glob."""
        parts = path.split("/")
        return any(self.includes("/".join(parts[: i + 1])) for i in range(len(parts)))


@functools.lru_cache(maxsize=256)
def _compile(option: str, pattern: str) -> re.Pattern[str]:
    """Compiles a glob: "*" and "?" do not match "/", "**" does; without a "/" it matches names at any depth."""
    glob = pattern.removeprefix("./").rstrip("/")
    if not glob:
        raise ConfigError(
            f"{option} {pattern!r}: an empty glob; give a name, such as '*.png', or a path, such as 'cat/old'"
        )
    anchored = "/" in glob
    expression = "" if anchored else "(?:.*/)?"
    for part in re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?|\[!?\]?[^\]/]*\])", glob.lstrip("/")):
        expression += _GLOBS.get(part) or (_character_set(part) if _is_set(part) else re.escape(part))
    return re.compile(expression, re.DOTALL)


_GLOBS = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _is_set(part: str) -> bool:
    return part.startswith("[") and part.endswith("]") and len(part) > 2


def _character_set(part: str) -> str:
    content = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[^{content[1:]}]" if content.startswith("!") else f"[{content}]"
