"""IMAGES as a .zip or .tar: its members are extracted once, in order, into numbered files that the map step reads.

No file is named after a member, so a malicious path cannot escape the folder; only a member's bytes and path are kept.
"""

import dataclasses
import json
import lzma
import os
import posixpath
import re
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from shardstream.ingest.common.atomic_io import write_atomic
from shardstream.ingest.common.errors import DatasetError, MachineError
from shardstream.ingest.common.safe_files import parse_errors
from shardstream.ingest.dataset.layout import Layout
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.pipeline.archive_members import Member, read_members
from shardstream.ingest.pipeline.clutter import HEAD_BYTES, clutter_kind, is_sidecar, sidecar_suffix
from shardstream.ingest.pipeline.file_filter import FileFilter
from shardstream.ingest.pipeline.listing import Found, Listing, shown, spooled_name
from shardstream.ingest.pipeline.own_files import is_spooled_file, remove_files
from shardstream.ingest.pipeline.split_folders import split_of_word

_INDEX = "index.json"  # Written last: a spool that has it is complete.
_COPY_BYTES = 1 << 20
# Zip bomb limits: images hardly compress, only bitmaps of one color do, so larger ratios are meant to fill the disk.
_MAX_RATIO, _MAX_UNSUSPICIOUS_BYTES = 200, 2 << 30
_KEPT_FREE_BYTES = 256 << 20
_MAX_NAMED = 3
_OUTSIDE = "names that lead out of the archive"
_DRIVE = re.compile(r"[A-Za-z]:")
_CORRUPT_MEMBER = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_REMEDY = "get it again, or unpack it and give the folder"


@dataclasses.dataclass(slots=True)
class _Spooled:
    """The members that were spooled so far.

    Attributes:
        files: Size, time and number of the spooled file by path.
        skipped: The number of skipped members by reason.
        notes: Notes for the user, in sentences.
        outside: The first few paths that lead out of the archive.
        corrupt: The paths of members with a checksum mismatch.
    """

    files: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    outside: list[str] = dataclasses.field(default_factory=list)
    corrupt: list[str] = dataclasses.field(default_factory=list)


def open_archive(path: Path, spool: Path | None, layout: Layout) -> Found:
    """Extracts an archive into numbered files in `spool` and returns its files.

    Args:
        path: A .zip or .tar file, compressed or not.
        spool: The folder to extract to; files of the same archive from an earlier call are reused.
        layout: Which files are skipped.

    Raises:
        DatasetError: The file is not a readable archive.
        MachineError: There is not enough disk space for its files.
    """
    if not zipfile.is_zipfile(path) and not _is_tar(path):
        if _starts_as_zip(path):
            raise DatasetError(
                f"{path}: a .zip whose end is missing, as of a download that stopped; {_REMEDY}"
            )
        raise DatasetError(
            f"{path}: neither a folder nor a .zip or .tar archive; unpack it and give the folder"
        )
    if spool is None:
        raise DatasetError(f"{path}: an archive; unpack it and give the folder here")
    archive = FileState.of(path.stat())  # Before it is read: a later change is seen by the next update.
    spooled = _load(archive, spool, layout) or _spool(path, archive, spool, layout)
    return _list(spool, spooled, archive, layout)


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _spool(path: Path, archive: FileState, spool: Path, layout: Layout) -> _Spooled:
    remove_files(spool, is_spooled_file)
    spool.mkdir(parents=True, exist_ok=True)
    spooled = _Spooled()
    space = _Space(path, spool)
    file_filter = FileFilter(layout.exclude, layout.include)
    number = 0
    with parse_errors(path, _REMEDY):
        for member in read_members(path, space.check):
            name = _plain_path(member.path)
            reason = member.skipped or _reason_to_skip(name, file_filter)
            if name is None and len(spooled.outside) < _MAX_NAMED:
                spooled.outside.append(member.path)
            if reason or name is None:
                spooled.skipped[reason] += 1
                continue
            target = spool / spooled_name(number)
            try:
                is_taken = _copy(member, target, space)
            except _CORRUPT_MEMBER:
                target.write_bytes(
                    b""
                )  # Checksum mismatch: keeps the path with an empty file, which is rejected.
                spooled.corrupt.append(name)
                is_taken = True
            if not is_taken:
                spooled.skipped[f"not images ({sidecar_suffix(name)})"] += 1
                continue
            # The last member of a path wins, as in unpacking.
            spooled.files[name] = (target.stat().st_size, member.mtime_ns, number)
            number += 1
    if spooled.outside:
        spooled.notes.append(
            f"{path}: {spooled.skipped[_OUTSIDE]:,} members whose names lead out of the archive were left out: "
            f"{', '.join(map(shown, spooled.outside))}"
        )
    if spooled.corrupt:
        spooled.notes.append(
            f"{path}: {len(spooled.corrupt):,} members are corrupt in the archive, and count as empty files: "
            f"{', '.join(map(shown, spooled.corrupt[:_MAX_NAMED]))}"
        )
    _save(archive, spool, layout, spooled)
    return spooled


def _reason_to_skip(name: str | None, file_filter: FileFilter) -> str:
    if name is None:
        return _OUTSIDE
    parts = name.split("/")
    for i, part in enumerate(parts):
        if kind := clutter_kind(part):
            return kind if kind == "hidden" else f"left behind by a system ({kind})"
        if pattern := file_filter.excluded_by("/".join(parts[: i + 1])):
            return f"files left out by --exclude {pattern}"
    return "" if file_filter.includes_below(name) else "files left out by --include"


def _plain_path(path: str) -> str | None:
    """Returns the path relative to the root of the archive; None if it leads out of it."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path or _DRIVE.fullmatch(parts[0]):
        return None
    return "/".join(parts)


def _copy(member: Member, target: Path, space: "_Space") -> bool:
    """Writes a member to a file; returns False if it is skipped because its first bytes say it is a sidecar."""
    content = member.content
    if content is None:
        return False
    target.parent.mkdir(exist_ok=True)
    with target.open("wb") as file:
        block = content.read(HEAD_BYTES)
        suffix = sidecar_suffix(posixpath.basename(member.path))
        if suffix and is_sidecar(suffix, block):
            return False
        while block:
            space.take(len(block))
            file.write(block)
            block = content.read(_COPY_BYTES)
    return True


class _Space:
    """Keeps an archive from filling the disk.

    Args:
        archive: Path of the archive.
        folder: The folder its members are extracted to.
    """

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive = archive
        self._folder = folder
        self._limit = max(_MAX_UNSUSPICIOUS_BYTES, _MAX_RATIO * archive.stat().st_size)
        self._written = 0
        self._next_check = 0

    def check(self, num_bytes: int) -> None:
        """Raises an error if `num_bytes` more exceed the limits of the archive or the space on the disk."""
        if self._written + num_bytes > self._limit:
            raise DatasetError(
                f"{self._archive}: unpacks to {(self._written + num_bytes) / 1e9:.1f} GB or more, over {_MAX_RATIO} "
                "times its size, like a decompression bomb; if it is none, unpack it yourself and give the folder"
            )
        free = shutil.disk_usage(self._folder).free
        if num_bytes + _KEPT_FREE_BYTES > free:
            raise MachineError(
                f"{self._folder}: {free / 1e9:.1f} GB are free, the files of {self._archive} take "
                f"{num_bytes / 1e9:.1f} GB; choose a disk with more space with --work-dir"
            )

    def take(self, num_bytes: int) -> None:
        """Counts bytes that are about to be written."""
        self._written += num_bytes
        if self._written >= self._next_check:
            self.check(0)
            self._next_check = self._written + _KEPT_FREE_BYTES // 4


def _list(spool: Path, spooled: _Spooled, archive: FileState, layout: Layout) -> Found:
    files = _without_wrapper(spooled.files, layout)
    listing = Listing(spool, ())
    listing.skipped, listing.notes = Counter(spooled.skipped), list(spooled.notes)
    folders: dict[str, int] = {"": 0}
    numbers = []
    for path in sorted(files, key=os.fsencode):
        size_bytes, mtime_ns, number = files[path]
        parts = path.split("/")[:-1]
        for i in range(len(parts)):
            folders.setdefault("/".join(parts[: i + 1]), len(folders))
        # The times in an archive are what its writer says: the state of the archive itself shows a change.
        state = FileState(size_bytes, mtime_ns, archive.ctime_ns, archive.inode)
        listing.append(os.fsencode(path), folders["/".join(parts)], state)
        numbers.append(number)
    listing.numbers = np.array(numbers, np.int64)
    return Found(listing, list(folders), sorted({path.split("/")[0] for path in files}))


def _without_wrapper(
    files: dict[str, tuple[int, int, int]], layout: Layout
) -> dict[str, tuple[int, int, int]]:
    """Strips the single top folder that many archives have around all files."""
    while True:
        tops = {path.partition("/")[0] for path in files}
        inner = {path.split("/")[1] for path in files if path.count("/") >= 2}
        top = next(iter(tops), "")
        is_wrapper = len(tops) == 1 and all("/" in path for path in files) and inner
        keeps = (
            layout.has_table or layout.class_depth != 1 or (layout.splits_from_folders and split_of_word(top))
        )
        if keeps or not is_wrapper:
            return files
        files = {path.removeprefix(f"{top}/"): file for path, file in files.items()}


def _identity(archive: FileState, layout: Layout) -> dict[str, object]:
    return {**archive._asdict(), "filters": [list(layout.exclude), list(layout.include)]}


def _save(archive: FileState, spool: Path, layout: Layout, spooled: _Spooled) -> None:
    content = {
        "archive": _identity(archive, layout),
        "files": {name: list(file) for name, file in spooled.files.items()},
        "skipped": dict(spooled.skipped),
        "notes": spooled.notes,
    }
    write_atomic(spool / _INDEX, json.dumps(content).encode())


def _load(archive: FileState, spool: Path, layout: Layout) -> _Spooled | None:
    """Returns the files in `spool` if they are complete and come from this archive."""
    try:
        content = json.loads((spool / _INDEX).read_bytes())
        if content["archive"] != _identity(archive, layout):
            return None
        files = {name: (size, mtime, number) for name, (size, mtime, number) in content["files"].items()}
        return _Spooled(files, Counter(content["skipped"]), content["notes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
