"""Walks the files below a folder, sorted by the bytes of their paths."""

import collections
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.prefetch import LatencyEstimate, prefetch_map
from shardstream.ingest.common.retries import retry_transient
from shardstream.ingest.pipeline.clutter import HEAD_BYTES, clutter_kind, is_sidecar, sidecar_suffix
from shardstream.ingest.pipeline.file_filter import FileFilter

# Two links at each of 22 levels are four million paths to one file, without any cycle.
_MAX_LINKED_VISITS = 8
OUTSIDE_LINK = "links that lead out of IMAGES (--follow-links follows them)"


class FoundFile(NamedTuple):
    """A file: its path relative to the source folder, and its stat result."""

    path: bytes
    status: os.stat_result


class FoundFolder(NamedTuple):
    """A folder that is walked: its path relative to the source folder."""

    path: bytes


class _Name(NamedTuple):
    name: bytes
    is_folder: bool
    is_link: bool


class _Answer(NamedTuple):
    status: os.stat_result | None
    skipped: str  # Why the file is skipped; empty if it is used.


class FolderWalk:
    """Walks a folder.

    Attributes:
        skipped: The number of skipped files and folders by reason.
    """

    def __init__(self, root: Path, file_filter: FileFilter, *, follow_links: bool) -> None:
        self.skipped: collections.Counter[str] = collections.Counter()
        self._root = os.fsencode(root)
        self._real_root = os.path.realpath(self._root)
        self._filter = file_filter
        self._follow_links = follow_links
        self._pace = LatencyEstimate()
        self._linked_visits: collections.Counter[tuple[int, int]] = collections.Counter()

    def __iter__(self) -> Iterator[FoundFile | FoundFolder]:
        """Yields each folder before what is in it. Not recursive: a folder may be a thousand levels deep."""
        above: list[tuple[int, int]] = []
        levels = [self._level(b"", is_included=self._filter.includes(""), above=above)]
        above.append(_identity(self._root))
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                above.pop()
            elif isinstance(found, FoundFile):
                yield found
            else:
                path, is_included, identity = found
                yield FoundFolder(path)
                levels.append(self._level(path + b"/", is_included=is_included, above=above))
                above.append(identity)

    def _level(
        self, prefix: bytes, *, is_included: bool, above: list[tuple[int, int]]
    ) -> Iterator[FoundFile | tuple[bytes, bool, tuple[int, int]]]:
        folder = self._root + b"/" + prefix
        names = [name for name in _names(folder) if self._takes(name, prefix, is_included)]
        answers = prefetch_map(
            lambda name: _ask(folder + name.name, name), names, bytes(len(names)), self._pace
        )
        for name, answer in zip(names, answers, strict=True):
            path = prefix + name.name
            if answer.skipped:
                self.skipped[answer.skipped] += 1
            elif answer.status is None:
                continue
            elif not name.is_folder:
                yield FoundFile(path, answer.status)
            elif identity := self._enter(answer.status, name, above):
                yield path, is_included or self._filter.includes(os.fsdecode(path)), identity

    def _takes(self, name: _Name, prefix: bytes, is_included: bool) -> bool:
        text = os.fsdecode(name.name)
        reason = ""
        if kind := clutter_kind(text):
            reason = kind if kind == "hidden" else f"left behind by a system ({kind})"
        elif name.is_link and not self._follow_links and self._leads_out(prefix + name.name):
            reason = OUTSIDE_LINK
        elif not self._filter.takes_all:
            path = os.fsdecode(prefix) + text
            if pattern := self._filter.excluded_by(path):
                reason = f"{'folders' if name.is_folder else 'files'} left out by --exclude {pattern}"
            elif not name.is_folder and not is_included and not self._filter.includes(path):
                reason = "files left out by --include"
        self.skipped[reason] += bool(reason)
        return not reason

    def _leads_out(self, path: bytes) -> bool:
        target = os.path.realpath(self._root + b"/" + path)
        return target != self._real_root and not target.startswith(self._real_root + b"/")

    def _enter(
        self, status: os.stat_result, name: _Name, above: list[tuple[int, int]]
    ) -> tuple[int, int] | None:
        """Returns the identity of a folder to walk; None if it is a link cycle or was visited too often."""
        identity = status.st_dev, status.st_ino
        if identity in above:
            self.skipped["links in a circle"] += 1
            return None
        if name.is_link:
            self._linked_visits[identity] += 1
            if self._linked_visits[identity] > _MAX_LINKED_VISITS:
                self.skipped[f"folders that more than {_MAX_LINKED_VISITS} links lead to"] += 1
                return None
        return identity


def _names(folder: bytes) -> list[_Name]:
    """Returns the sorted entries of `folder`; only names, since a folder may have a million files."""
    try:
        found = retry_transient(lambda: _scan(folder))
    except OSError as error:
        if is_machine_error(error):
            raise
        raise _unreadable(folder, "listed", error) from None
    # With a trailing "/" a folder sorts in the same way as the paths below it.
    found.sort(key=lambda name: name.name + b"/" * name.is_folder)
    return found


def _scan(folder: bytes) -> list[_Name]:
    with os.scandir(folder) as entries:
        return [_Name(entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries]


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself or to an inaccessible path: processed, and rejected, like any file.
        return False


def _identity(folder: bytes) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - Paths of pathlib are not bytes.
    return status.st_dev, status.st_ino


def _ask(path: bytes, name: _Name) -> _Answer:
    try:
        status = _status(path)
    except FileNotFoundError:
        return _Answer(None, "gone before it was listed")
    if name.is_folder:
        return _Answer(status, "")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        return _Answer(status, "neither file nor folder")  # Reading a pipe would block forever.
    suffix = sidecar_suffix(os.fsdecode(name.name))
    if suffix and is_sidecar(suffix, _head(path)):
        return _Answer(status, f"not images ({suffix})")
    return _Answer(status, "")


def _status(path: bytes) -> os.stat_result:
    """Returns the stat result of a file, or of a broken link itself: processed, and rejected, like any file."""
    try:
        return retry_transient(lambda: os.stat(path))  # noqa: PTH116
    except OSError as error:
        if is_machine_error(error):
            raise
    try:
        return retry_transient(lambda: os.lstat(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        if is_machine_error(error):
            raise
        raise _unreadable(path, "looked at", error) from None


def _head(path: bytes) -> bytes:
    try:
        return retry_transient(lambda: _read_head(path))
    except OSError as error:
        if is_machine_error(error):
            raise
        return b""  # Unreadable: only the suffix is known.


def _read_head(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read(HEAD_BYTES)


def _unreadable(path: bytes, done: str, error: OSError) -> DatasetError:
    shown = path.rstrip(b"/").decode("utf-8", "backslashreplace")
    shown = shown if len(shown) < 300 else f"{shown[:300]}..."
    return DatasetError(
        f"{shown}: cannot be {done}: {error.strerror}; make it readable or take it out of the photos"
    )
